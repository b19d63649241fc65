"""`imagefarm lookup`: finds the job of an image from the image's file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imagefarm.cli.connection import Key, Url, connect
from imagefarm.cli.exit_codes import ExitCode
from imagefarm.cli.output import AsJson, note, print_json, print_table

PROOF = {
    "file": "unchanged: the file's SHA-256 is on record",
    "pixels": "the pixels are on record; the file around them is another",
    "metadata": "CHANGED: only what the file says of itself leads here",
}


def register(app: typer.Typer) -> None:
    app.command()(lookup)


def lookup(
    file: Annotated[Path, typer.Argument(help="The picture's file.", exists=True, dir_okay=False, readable=True)],
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Find the job of a picture from the picture's file. The exit code is 11 if this farm did not render it."""
    with connect(url, key) as farm:
        found = farm.images.lookup(file)
        job = farm.jobs.get(found.items[0].job_id) if found.items else None
    if as_json:
        print_json(found.model_dump(mode="json") | {"job": job.model_dump(mode="json") if job else None})
    elif job is not None:
        image = found.items[0]
        rows = [
            ("file", PROOF.get(found.found_by or "", "")),
            ("job", job.id),
            ("image", image.id),
            ("prompt", job.recipe.get("prompt")),
            ("model", job.recipe.get("model")),
            ("seed", image.seed),
            ("labels", ", ".join(f"{name}={value}" for name, value in job.labels.items())),
            ("made", job.finished_at),
        ]
        print_table(("", ""), rows)
    if job is None:
        note(f"imagefarm: {file} was not made by this farm")
        raise typer.Exit(ExitCode.NOT_FOUND)
