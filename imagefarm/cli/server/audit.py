"""`imagefarm audit verify | export`: the record of all images, read directly from the database."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from imagefarm.cli.exit_codes import ExitCode
from imagefarm.cli.output import AsJson, note, print_json

if TYPE_CHECKING:
    from imagefarm.store import Store

PAGE = 1000
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class Form(StrEnum):
    CSV = "csv"
    JSONL = "jsonl"


def register(app: typer.Typer) -> None:
    area = typer.Typer(help="Verify and export the audit.", no_args_is_help=True)
    area.command()(verify)
    area.command()(export)
    app.add_typer(area, name="audit")


def verify(as_json: AsJson = False) -> None:
    """Verify the hash chain of events; exit code 1 if a link is broken."""
    from imagefarm.store.audit import verify as walk

    with _store() as store, store.read() as session:
        report = walk(session)
    if as_json:
        print_json(asdict(report))
    elif report.whole:
        print(f"the chain is whole: {report.sealed} events, head {report.head[:16]}, {report.unsealed} not sealed yet")
    else:
        note(f"imagefarm: the chain is broken at event {report.broken_at}: {report.detail}")
    if not report.whole:
        raise typer.Exit(ExitCode.JOB_FAILED)


def export(
    form: Annotated[Form, typer.Option("--format", help="csv or jsonl.")] = Form.CSV,
    events: Annotated[
        bool, typer.Option("--events", help="Write the chain of events instead of the pictures (JSON Lines).")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="File to write; the default is standard output.")] = None,
) -> None:
    """Write one row for each picture: prompt, seed, model, hashes, path, and the inputs of a re-render."""
    with _store() as store, _target(out) as file:
        rows = _events(store) if events else _pictures(store)
        write = _jsonl(file) if events or form == Form.JSONL else _csv(file)
        for row in rows:
            write(row)


def _pictures(store: Store) -> Iterator[dict[str, Any]]:
    from sqlalchemy import select

    from imagefarm.store.models import Image, Job

    after = ""
    while True:
        statement = select(Image, Job).join(Job, Job.id == Image.job_id).where(Image.id > after).order_by(Image.id).limit(PAGE)
        with store.read() as session:
            page = [_picture(image, job) for image, job in session.execute(statement)]
        if not page:
            return
        yield from page
        after = page[-1]["image"]


def _picture(image: Any, job: Any) -> dict[str, Any]:
    return {
        "image": image.id,
        "job": job.id,
        "batch": job.batch_id,
        "tenant": job.tenant_id,
        "custom_id": job.custom_id,
        "labels": job.labels,
        "created_at": image.created_at,
        "prompt": job.prompt,
        "seed": image.seed,
        "model": job.model,
        "width": image.width,
        "height": image.height,
        "path": image.storage_key,
        "bytes": image.bytes,
        "sha256": image.sha256,
        "pixel_sha256": image.pixel_sha256,
        "ms": image.ms,
        "recipe_hash": job.recipe_hash,
        "recipe": job.recipe,
        "audit": image.audit,
    }


def _events(store: Store) -> Iterator[dict[str, Any]]:
    from sqlalchemy import select

    from imagefarm.store.models import Event

    after = 0
    while True:
        with store.read() as session:
            page = session.scalars(select(Event).where(Event.id > after).order_by(Event.id).limit(PAGE)).all()
            names = [column.name for column in Event.__table__.columns]
            rows = [{name: getattr(event, name) for name in names} for event in page]
        if not rows:
            return
        yield from rows
        after = rows[-1]["id"]


def _jsonl(file: IO[str]) -> Callable[[dict[str, Any]], None]:
    def write(row: dict[str, Any]) -> None:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")

    return write


def _csv(file: IO[str]) -> Callable[[dict[str, Any]], None]:
    writer: csv.DictWriter[str] | None = None

    def write(row: dict[str, Any]) -> None:
        nonlocal writer
        if writer is None:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
        writer.writerow({name: csv_cell(value) for name, value in row.items()})

    return write


def csv_cell(value: Any) -> Any:
    """A value as a cell that no spreadsheet treats as a formula."""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return value


@contextmanager
def _target(out: Path | None) -> Iterator[IO[str]]:
    if out is None:
        yield sys.stdout
        return
    with out.open("w", encoding="utf-8", newline="") as file:
        yield file


@contextmanager
def _store() -> Iterator[Store]:
    from imagefarm.settings import load_settings
    from imagefarm.store import Store
    from imagefarm.store.migrate import check

    store = Store(load_settings().database, pool_size=1)
    try:
        check(store)
        yield store
    finally:
        store.close()
