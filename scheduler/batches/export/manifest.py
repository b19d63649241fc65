"""Manifest, row report and error table of a batch, streamed as CSV and JSON Lines.

No transaction stays open between two lines, so a slow reader does not block other work.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import func, select

from imagefarm.imaging.formats import extension
from imagefarm.states import JobState
from imagefarm.store import Store
from imagefarm.store.jobs import channel_files_of, images_of
from imagefarm.store.models import Batch, ChannelFile, Image, Job, Pick
from scheduler.batches.review.picks import ImageRef, picks_of
from scheduler.batches.table.file_names import file_stem
from scheduler.batches.table.incremental import Change, removed_names
from scheduler.batches.table.stored_rows import StoredRow, load_rows

PAGE = 500
"""Jobs read per query."""
COLUMNS = ("row", "sku", "name", "file", "seed", "sha256", "state", "reason", "job", "custom_id", "pick", "verdict", "channel")
RISKY = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet reads a cell with one of these first characters as a formula."""
REPORT_COLUMNS = ("row", "sku", "change", "jobs", "pictures", "states", "problem")
REPORT_ROWS = 5000
"""Table rows whose jobs are counted per query."""
ERROR_COLUMNS = ("error_row", "error")
"""Added to the columns of the error table; removed when the corrected table is submitted."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a batch, or one job without images. Seeds are text, because JSON readers round large numbers."""

    row: int | None
    sku: str
    name: str
    file: str
    seed: str
    sha256: str
    state: str
    reason: str
    job: str
    custom_id: str
    storage_key: str = ""
    bytes: int = 0
    created_at: float = 0.0
    pick: str = ""
    """approved, rejected or rerolled; empty: not decided."""
    verdict: str = ""
    """Verdict of the quality gate: accept, review or reroll."""
    channel: str = ""
    """The channel of this file; empty: the master."""
    scores: dict[str, Any] | None = None

    def columns(self) -> dict[str, Any]:
        """Values of the manifest's columns."""
        return {name: getattr(self, name) for name in COLUMNS}


def entries(store: Store, batch_id: str, pick: str | None = None) -> Iterator[Entry]:
    """Yield every image of a batch in row order, re-rolls last. A job without images is one entry.

    A re-rolled image has no file: the image that replaces it has its name. With `pick`, only images with that pick (open:
    undecided).
    """
    after = ""
    while True:
        with store.read() as session:
            jobs = session.scalars(select(Job).where(Job.batch_id == batch_id, Job.id > after).order_by(Job.id).limit(PAGE)).all()
            images = images_of(session, [job.id for job in jobs])
            picks = picks_of(session, images)
            files = channel_files_of(session, {image.id for found in images.values() for image in found})
        if not jobs:
            return
        after = jobs[-1].id
        for job in jobs:
            for entry in _entries(job, images[job.id], picks, files):
                if pick is None or (entry.sha256 and (entry.pick or "open") == pick):
                    yield entry


def entries_of_job(store: Store, job_id: str) -> list[Entry]:
    """The images of one job, named by the job's id or, in a batch, by the batch's name pattern."""
    with store.read() as session:
        images = images_of(session, [job_id])[job_id]
        files = channel_files_of(session, [image.id for image in images])
        return list(_entries(session.get_one(Job, job_id), images, {}, files))


def _entries(
    job: Job, images: Sequence[Image], picks: Mapping[ImageRef, Pick], files: Mapping[str, Sequence[ChannelFile]]
) -> Iterator[Entry]:
    stem = job.name or job.id
    reason = (job.error_detail or job.error_code or "") if job.state == JobState.FAILED else "; ".join(map(str, job.warnings))
    shared = {"row": job.row, "sku": job.labels.get("sku", ""), "state": job.state, "reason": reason, "job": job.id}
    shared["custom_id"] = job.custom_id or ""
    if not images:
        yield Entry(**shared, name=job.name or "", file="", seed=job.recipe["seed"], sha256="")
    for image in images:
        name = file_stem(stem, image.index, job.count)
        decided = picks.get(ImageRef(job.id, image.index))
        gone = decided is not None and decided.replaced_by is not None
        master = Entry(
            **shared | ({"reason": f"re-rolled: {decided.replaced_by} takes its place"} if decided and gone else {}),
            name=name,
            file="" if gone else f"{name}.{extension(image.format)}",
            seed=image.seed,
            sha256=image.sha256,
            storage_key="" if gone else image.storage_key,
            bytes=image.bytes,
            created_at=image.created_at,
            pick="" if decided is None else decided.pick,
            verdict=(image.scores or {}).get("verdict", ""),
            scores=image.scores,
        )
        yield master
        for file in () if gone else files.get(image.id, ()):
            yield replace(
                master,
                # one folder per channel: image names contain no slash
                file=f"{file.channel}/{name}.{extension(file.format)}",
                sha256=file.sha256,
                storage_key=file.storage_key,
                bytes=file.bytes,
                channel=file.channel,
            )


def neutral(value: Any) -> str:
    """Return `value` as a cell that no spreadsheet runs as a formula.

    >>> neutral("=1+1"), neutral("plain"), neutral(None)
    ("'=1+1", 'plain', '')
    """
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(RISKY) else text


def csv_lines(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Yield CSV text in pieces, after the byte order mark by which Excel recognises UTF-8."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow([neutral(name) for name in header])
    yield "\ufeff"
    for row in rows:
        writer.writerow([neutral(value) for value in row])
        if buffer.tell() > 32_000:
            yield _taken(buffer)
    yield _taken(buffer)


def _taken(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text


def manifest_csv(found: Iterable[Entry]) -> Iterator[str]:
    """The manifest as CSV."""
    return csv_lines(COLUMNS, (tuple(entry.columns().values()) for entry in found))


def manifest_jsonl(found: Iterable[Entry]) -> Iterator[str]:
    """The manifest as JSON Lines."""
    for entry in found:
        scores = {} if entry.scores is None else {"scores": entry.scores}
        yield json.dumps(entry.columns() | scores, ensure_ascii=False) + "\n"


def errors_csv(store: Store, batch_id: str) -> Iterator[str]:
    """Yield rows that were rejected or whose jobs failed, as submitted, with the reason, to be corrected and sent again."""
    with store.read() as session:
        options = session.scalars(select(Batch.options).where(Batch.id == batch_id)).one()
    columns = [name for name in options.get("columns", []) if name not in ERROR_COLUMNS]

    def bad_rows() -> Iterator[list[Any]]:
        for rows in load_rows(store, batch_id):
            failed = _failed(store, batch_id, rows[0].number, rows[-1].number)
            for row in rows:
                reasons = [f"{field}: {detail}" for field, detail in row.errors or []] or failed.get(row.number)
                if reasons:
                    cells = (row.cells.get(name) for name in columns)
                    text = (json.dumps(cell) if isinstance(cell, dict | list) else cell for cell in cells)
                    yield [*text, row.number, "; ".join(reasons)]

    return csv_lines([*columns, *ERROR_COLUMNS], bad_rows())


def report_csv(store: Store, batch_id: str) -> Iterator[str]:
    """Yield one line per table row: its change since the previous table, its jobs, and its errors. Removed rows follow."""

    def lines() -> Iterator[list[Any]]:
        for rows in _in_thousands(load_rows(store, batch_id)):
            first, last = rows[0].number, rows[-1].number
            jobs, failed = _counted(store, batch_id, first, last), _failed(store, batch_id, first, last)
            for row in rows:
                states = jobs.get(row.number, {})
                told = ", ".join(f"{number} {state}" for state, (number, _) in sorted(states.items())) or "rejected"
                problem = "; ".join([f"{field}: {detail}" for field, detail in row.errors or []] or failed.get(row.number, []))
                numbers = [sum(number for number, _ in states.values()), sum(pictures for _, pictures in states.values())]
                yield [row.number, row.cells.get("sku", ""), row.change or "", *numbers, told, problem]
        with store.read() as session:
            options = session.scalars(select(Batch.options).where(Batch.id == batch_id)).one()
        if (before := options.get("update_of")) is not None:
            for name in removed_names(store, batch_id, before):
                yield ["", name, Change.REMOVED, 0, 0, "", ""]

    return csv_lines(REPORT_COLUMNS, lines())


def _in_thousands(chunks: Iterator[list[StoredRow]]) -> Iterator[list[StoredRow]]:
    rows: list[StoredRow] = []
    for chunk in chunks:
        rows += chunk
        if len(rows) >= REPORT_ROWS:
            yield rows
            rows = []
    if rows:
        yield rows


def _counted(store: Store, batch_id: str, first: int, last: int) -> dict[int, dict[str, tuple[int, int]]]:
    """By row number and job state: the number of jobs and the number of their images."""
    found: dict[int, dict[str, tuple[int, int]]] = {}
    with store.read() as session:
        rows = session.execute(
            select(Job.row, Job.state, func.count(), func.sum(Job.count))
            .where(Job.batch_id == batch_id, Job.row >= first, Job.row <= last)
            .group_by(Job.row, Job.state)
        )
        for row, state, jobs, pictures in rows:
            found.setdefault(row or 0, {})[state] = (jobs, pictures)
    return found


def _failed(store: Store, batch_id: str, first: int, last: int) -> dict[int, list[str]]:
    """Failure reasons of the jobs of rows `first` to `last`, by row number."""
    reasons: dict[int, list[str]] = {}
    with store.read() as session:
        found = session.execute(
            select(Job.row, Job.error_code, Job.error_detail).where(
                Job.batch_id == batch_id, Job.state == JobState.FAILED, Job.row >= first, Job.row <= last
            )
        )
        for row, code, detail in found:
            if row is None:
                continue
            reason = f"{code}: {detail}" if detail else str(code)
            known = reasons.setdefault(row, [])
            if reason not in known:
                known.append(reason)
    return reasons
