"""The output of the campaign: a line for each run, and the table of docs/reliability.md."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.faults.run import Fault, Outcome

HEAD = (
    "| fault | database | runs | flawed | jobs | disturbed | lost | doubled | ghosts | orphans | chain | back p50 / p99 | "
    "again p50 / p99 | failing p50 / max |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|---|---|---|"
)


def one_line(outcome: Outcome) -> str:
    """One run."""
    verdict = outcome.verdict
    words = [
        "ok  " if outcome.good else "FAIL",
        f"{outcome.fault:26} {outcome.database:10} seed {outcome.seed:3}",
        f"accepted {verdict.accepted:3} succeeded {verdict.succeeded:3} failed {verdict.failed} cancelled {verdict.cancelled}",
        f"lost {verdict.lost} doubled {verdict.doubled} ghosts {verdict.ghosts}",
        f"orphans {verdict.orphans} (strays {verdict.strays})",
        f"disturbed {outcome.disturbed} back {outcome.noticed_s} again {outcome.recover_s}",
        f"failing {outcome.failed_s} s, took {outcome.took_s} s",
    ]
    return "  ".join(words) + "".join(f"\n     {flaw[:3000]}" for flaw in verdict.flaws)


BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def read(files: Iterable[Path]) -> list[dict[str, Any]]:
    """The runs in these files, one per line."""
    return [json.loads(line) for file in files if file.exists() for line in file.read_text("utf-8").splitlines() if line]


def put(page: Path, text: str) -> None:
    """Replace the text between the marks in a page."""
    before, begin, rest = page.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no {BEGIN} ... {END}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")


def summary(runs: Collection[Mapping[str, Any]]) -> str:
    """All runs in a sentence."""
    verdicts = [run["verdict"] for run in runs]
    names = ("accepted", "lost", "doubled", "ghosts", "orphans", "strays")
    total = {name: sum(verdict[name] for verdict in verdicts) for name in names}
    disturbed = sum(run["disturbed"] for run in runs)
    commits = sorted({run.get("commit") or "unknown" for run in runs})
    flawed = sum(not run["good"] for run in runs)
    return (
        f"In all {len(runs):,} runs, {total['accepted']:,} accepted jobs, {disturbed:,} attempts lost to a fault: "
        f"lost {total['lost']}, doubled {total['doubled']}, ghosts {total['ghosts']}, orphans {total['orphans']} "
        f"({total['strays']:,} stray files were there to collect); {flawed} runs had a flaw of any kind. "
        f"Code: {', '.join(commits)}."
    )


def markdown(runs: Collection[Mapping[str, Any]], faults: Mapping[str, Fault]) -> str:
    """The table of all runs, in the order of the faults."""
    groups: dict[tuple[str, str, float], list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["fault"], run["database"], run["lease_s"]), []).append(run)
    rows = []
    for name, fault in faults.items():
        for (fault_name, database, lease_s), members in sorted(groups.items()):
            if fault_name == name:
                rows.append(_row(fault, database, lease_s, members))
    shown = {run["fault"] for run in runs}
    legend = [f"- `{name}`: {fault.what}" for name, fault in faults.items() if name in shown]
    return "\n".join([summary(runs), "", HEAD, *rows, "", *legend])


def _row(fault: Fault, database: str, lease_s: float, runs: list[Mapping[str, Any]]) -> str:
    verdicts = [run["verdict"] for run in runs]
    cells = [
        f"`{fault.name}`" + (f", lease {lease_s:.0f} s" if lease_s >= 30 else ""),
        database,
        len(runs),
        sum(not run["good"] for run in runs),
        sum(verdict["accepted"] for verdict in verdicts),
        sum(run["disturbed"] for run in runs),
        *(sum(verdict[name] for verdict in verdicts) for name in ("lost", "doubled", "ghosts", "orphans")),
        "whole" if all(verdict["chain_whole"] for verdict in verdicts) else "**broken**",
        _two(run["noticed_s"] for run in runs),
        _two(run["recover_s"] for run in runs),
        _two((run["failed_s"] for run in runs), 1.0),
    ]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _two(values: Iterable[float | None], high: float = 0.99) -> str:
    known = sorted(value for value in values if value is not None)
    if not known:
        return "-"
    return f"{_at(known, 0.5):.1f} / {_at(known, high):.1f} s"


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
