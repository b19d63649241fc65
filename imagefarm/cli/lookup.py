"""`imagefarm lookup`: from a picture's file back to the job that made it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from imagefarm.cli.connection import Key, Url, connect
from imagefarm.cli.exit_codes import ExitCode
from imagefarm.cli.output import AsJson, note, print_json, print_table
from imagefarm.picture.metadata import read_metadata


def register(app: typer.Typer) -> None:
    app.command()(lookup)


def lookup(
    file: Annotated[Path, typer.Argument(help="A picture.", exists=True, dir_okay=False, readable=True)],
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Find the job that made a picture, from what its file says, and check it against the farm's record."""
    data = file.read_bytes()
    says = read_metadata(data)
    record = says.get("imagefarm")
    if record is None:
        note(f"imagefarm: {file} carries no record of a farm")
        raise typer.Exit(ExitCode.NOT_THERE)
    with connect(url, key) as farm:
        job = farm.get(str(record.get("job", "")))
    sha256 = hashlib.sha256(data).hexdigest()
    same = [image for image in job.images if image.sha256 == sha256]
    if as_json:
        print_json({"job": job.model_dump(mode="json"), "sha256": sha256, "unchanged": bool(same), "file": says})
        return
    proof = "unchanged: its SHA-256 is on record" if same else "CHANGED since it was made: its SHA-256 is not on record"
    rows = [
        ("file", proof),
        ("job", job.id),
        ("prompt", job.recipe.get("prompt")),
        ("model", job.recipe.get("model")),
        ("seed", record.get("seed")),
        ("labels", ", ".join(f"{name}={value}" for name, value in job.labels.items())),
        ("made", job.finished_at),
    ]
    print_table(("", ""), rows)
