"""Drafts to finals by the Python client and by the command line, against the real API."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from imagefarm import Client
from imagefarm.cli import picks as picks_commands
from imagefarm.states import JobState
from tests.api.farm_api import FarmApi
from tests.imagefarm.cli.test_commands import Command, run

__all__ = ["run"]


def render(api: FarmApi, client: Client, batch: str) -> None:
    for job in client.jobs.list(batch=batch, state="queued"):
        if client.jobs.get(job).state == JobState.QUEUED:
            api.render(api.claim(job.id))


def test_from_drafts_to_finals(
    api: FarmApi, client: Client, tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picks_commands, "connect", lambda url, key: nullcontext(client))
    table = tmp_path / "table.csv"
    table.write_text("sku,prompt\nA,mug\nB,box\nC,jar\n")
    batch = str(client.batches.submit(table).id)
    render(api, client, batch)
    named = {image.name: image for image in client.batches.images(batch)}
    assert list(named) == ["A", "B", "C"]
    seen = client.batches.pick(batch, {named["A"].id: "approve", named["B"].id: "reject"})
    assert (seen.picks.approved, seen.picks.rejected, seen.picks.open) == (1, 1, 1)
    told = run("picks", batch, "--reroll", named["C"].id, "--approve", named["B"].id)
    assert (told.code, told.out) == (0, f"{batch}: 2 approved, 0 rejected, 1 re-rolled, 0 open\n")
    render(api, client, batch)
    listed = json.loads(run("picks", batch, "--only", "open", "--json").out)
    assert [(image["name"], image["from_image"]) for image in listed] == [("C", named["C"].id)]
    assert "3 approved" in run("picks", batch, "--approve-open").out
    assert "B " in run("picks", batch).out
    assert run("picks", batch, "--approve", "x", "--reject", "x").code == 2
    made = json.loads(run("finals", batch, "--size", "128x128", "--no-wait", "--json").out)
    assert (made["drafts"], made["counts"]["queued"]) == (batch, 3)
    render(api, client, made["id"])
    done = run("finals", batch, "--size", "128x128", "--out", tmp_path / "finals")
    assert done.code == 0
    assert f"3 of 3 succeeded; pictures and manifest.csv are in {tmp_path / 'finals'}" in done.out
    assert sorted(path.name for path in (tmp_path / "finals").iterdir()) == ["A.png", "B.png", "C.png", "manifest.csv"]
    assert run("finals", batch, "--size", "128x128", "--upscale", ":2").code == 2
