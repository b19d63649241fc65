"""`imagefarm batch`: a table becomes pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imagefarm.cli.connection import Key, Url, connect
from imagefarm.cli.exit_codes import ExitCode
from imagefarm.cli.output import AsJson, note, print_json
from imagefarm.cli.progress import progress_bar
from imagefarm.cli.submit import sides
from imagefarm.client import Batch, Client, Job
from imagefarm.states import JobState


def register(app: typer.Typer) -> None:
    app.command()(batch)


def batch(
    table: Annotated[Path, typer.Argument(help="The table: .csv or .jsonl.", exists=True, dir_okay=False, readable=True)],
    *,
    template: Annotated[str | None, typer.Option(help="Prompt with {{ column }}; the default is a column `prompt`.")] = None,
    model: Annotated[str | None, typer.Option(help="Model; see `imagefarm models`.")] = None,
    size: Annotated[str | None, typer.Option(help="Width and height in pixels, such as 512x512.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the batch; the default is the file's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write the pictures to.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the pictures.")] = True,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Submit a table, one job a row, wait for it, and fetch the pictures into --out. Ctrl-C leaves it to go on."""
    width, height = sides(size)
    with connect(url, key) as farm:
        made = farm.batch(table, template=template, model=model, width=width, height=height, steps=steps, name=name or table.stem)
        _tell_errors(made)
        if wait and made.id is not None:
            try:
                made = wait_for_batch(farm, made)
            except KeyboardInterrupt:
                note(f"imagefarm: {made.id} goes on")
                raise typer.Exit(ExitCode.INTERRUPTED) from None
        files = fetch(farm, made, out) if out is not None and wait else []
    if as_json:
        print_json(made.model_dump(mode="json") | ({"files": [str(file) for file in files]} if out else {}))
    else:
        counts = made.counts
        print(
            f"{made.id} {made.state}: {counts.succeeded} succeeded, {counts.failed} failed, {counts.cancelled} cancelled, "
            f"{counts.rejected} rows rejected" + (f"; {len(files)} pictures in {out}" if out else "")
        )
    if made.counts.failed or made.counts.cancelled or made.counts.rejected:
        raise typer.Exit(ExitCode.JOB_FAILED)


def wait_for_batch(farm: Client, batch: Batch) -> Batch:
    """Wait for a batch behind a progress bar."""
    with progress_bar("pictures", batch.counts.jobs) as advance:
        return farm.wait_batch(batch, on_progress=lambda seen: advance(seen.counts.ended, seen.counts.jobs))


def fetch(farm: Client, batch: Batch, folder: Path) -> list[Path]:
    """Write the pictures of a batch's succeeded jobs into `folder`, named by what the row calls itself."""
    files: list[Path] = []
    for job in farm.list(batch=batch.id, state=str(JobState.SUCCEEDED)):
        files += farm.download(job, folder, name=file_stem(job))
    return files


def file_stem(job: Job) -> str:
    """The job's own name for its files, as far as it is a plain file name: name, custom_id, SKU, or the job's id."""
    for wanted in (job.model_dump().get("name"), job.custom_id, job.labels.get("sku")):
        if isinstance(wanted, str) and wanted.strip(". ") and not set(wanted) & set('/\\\0:*?"<>|'):
            return wanted
    return job.id


def _tell_errors(batch: Batch) -> None:
    for error in batch.errors:
        where = f"row {error.get('row')}, {error.get('field')}" if error.get("row") is not None else str(error.get("field"))
        note(f"  {where}: {error.get('detail')}" + (f"; {error['remedy']}" if error.get("remedy") else ""))
