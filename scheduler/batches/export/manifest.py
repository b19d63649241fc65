"""What became of a batch, a line for each picture, and its table's bad rows to mend: CSV and JSON Lines, streamed.

Nothing here holds a transaction between two lines, so a slow reader holds up nobody.
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
"""Jobs that are read at a time."""
COLUMNS = ("row", "sku", "name", "file", "seed", "sha256", "state", "reason", "job", "custom_id", "pick", "verdict", "channel")
RISKY = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so is a formula to a spreadsheet."""
REPORT_COLUMNS = ("row", "sku", "change", "jobs", "pictures", "states", "problem")
REPORT_ROWS = 5000
"""Rows of a table whose jobs are counted at a time."""
ERROR_COLUMNS = ("error_row", "error")
"""Added to the columns of a table of bad rows; taken away again when it comes back."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture of a batch, or one job that has none (yet). Seeds are text: JSON readers round large numbers."""

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
    """approved, rejected, rerolled; empty: not decided."""
    verdict: str = ""
    """What the gate said: accept, review, reroll."""
    channel: str = ""
    """The channel that this file is for; empty: the master."""
    scores: dict[str, Any] | None = None

    def columns(self) -> dict[str, Any]:
        """What a manifest shows."""
        return {name: getattr(self, name) for name in COLUMNS}


def entries(store: Store, batch_id: str, pick: str | None = None) -> Iterator[Entry]:
    """Every picture of a batch in the order of its rows, re-rolls last; a job without pictures is one entry.

    A picture that was re-rolled has no file any more: the one that takes its place has its name. With `pick`, only those that
    were decided so (open: not yet).
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
    """The pictures of one job, named by its id or, in a batch, by the batch's pattern."""
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
                # a folder for each channel: no name of a picture has a slash
                file=f"{file.channel}/{name}.{extension(file.format)}",
                sha256=file.sha256,
                storage_key=file.storage_key,
                bytes=file.bytes,
                channel=file.channel,
            )


def neutral(value: Any) -> str:
    """`value` as a cell that no spreadsheet runs.

    >>> neutral("=1+1"), neutral("plain"), neutral(None)
    ("'=1+1", 'plain', '')
    """
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(RISKY) else text


def csv_lines(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """A CSV text in pieces, with the mark by which Excel knows UTF-8."""
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
    """The rows that were refused or whose jobs failed, as they came, with the reason: to be mended and sent again."""
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
    """A line for each row of the table: what became of it since the earlier table, its jobs, and what is wrong with it."""

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
    """For each row by its number: by state, how many jobs and how many pictures of those."""
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
    """The reasons of the failed jobs of some rows."""
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
