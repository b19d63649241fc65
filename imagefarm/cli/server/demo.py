"""`imagefarm demo`: starts a farm, renders a product table, fetches the images, prints their audit, and stops the farm."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from imagefarm.cli.batch import wait_for_batch
from imagefarm.cli.exit_codes import ExitCode
from imagefarm.cli.output import note, print_table
from imagefarm.client import Client, Job
from imagefarm.settings import Settings, load_settings, shipped
from imagefarm.states import JobState

TEMPLATE = "{{ product }}, {{ background }}"
SEED = 7
"""A fixed seed, so that each run gives the same images."""


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    table: Annotated[
        Path | None, typer.Option(help="Table with the columns sku, product, background; the default is examples/products.csv.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("outputs/demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Keep the demo farm's data folder.")] = False,
) -> None:
    """Start a separate farm, submit a product table over HTTP, fetch the pictures, print their audit, and stop the farm."""
    from imagefarm.cli.server.contact_sheet import write_contact_sheet
    from imagefarm.supervisor.farm import EmbeddedFarm

    began = time.monotonic()
    table = table or shipped("examples/products.csv")
    data = (out / ".farm").absolute()
    shutil.rmtree(data, ignore_errors=True)
    for old in [*out.glob("*.png"), out / "manifest.csv"]:
        old.unlink(missing_ok=True)
    farm = EmbeddedFarm(demo_settings(data))
    signal.signal(signal.SIGTERM, _interrupt)
    note("starting a farm (database, Redis, API, scheduler, worker)")
    try:
        farm.start()
        note(f"the farm is ready at {farm.url} after {time.monotonic() - began:.1f} s; submitting {table.name}")
        with Client(farm.url) as client:
            jobs = render_table(client, table, out)
            print_audit(client, jobs)
        missing = [job for job in jobs if job.state != JobState.SUCCEEDED]
        sheet = out / "contact-sheet.png"
        pictures = [(out / f"{job.labels['sku']}.png", job.labels["sku"]) for job in jobs if job not in missing]
        if pictures:
            write_contact_sheet(pictures, sheet)
    except KeyboardInterrupt:
        farm.hurry.set()
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    finally:
        farm.stop()
        if not keep:
            shutil.rmtree(data, ignore_errors=True)
    for job in missing:
        note(f"imagefarm: {job.labels['sku']} {job.state}: {job.reason}")
    print(f"{len(pictures)} of {len(jobs)} pictures are in {out}, all on one: {sheet}  ({time.monotonic() - began:.1f} s)")
    if missing:
        raise typer.Exit(ExitCode.JOB_FAILED)


def demo_settings(data: Path) -> Settings:
    """The settings of a farm that shares nothing with a farm that may already run here, whatever imagefarm.toml says."""
    return load_settings(
        data_dir=data,
        outputs_dir=data / "outputs",
        database_url="",
        redis_url="",
        models_file=shipped("models.toml"),
        host="127.0.0.1",
        port=0,
        auth="open",
        worker_models=["demo"],
        preload_models=["demo"],
    )


def render_table(client: Client, table: Path, out: Path) -> list[Job]:
    """Submit the table as a batch, wait for it, and write `out/SKU.png`. Returns the jobs in the table's order."""
    batch = wait_for_batch(client, client.batches.submit(table, template=TEMPLATE, model="demo", seed=SEED, name="demo"))
    client.batches.download(batch, out)
    return list(client.jobs.list(batch=batch.id))[::-1]


def print_audit(client: Client, jobs: list[Job]) -> None:
    """Print the farm's record of every image."""
    rows = []
    for job in jobs:
        for image in job.images:
            record = client.images.get(image)
            recipe = job.recipe
            rows.append(
                (
                    image.id,
                    job.labels["sku"],
                    recipe["prompt"],
                    image.seed,
                    recipe["model"],
                    f"{record.ms:.0f}",
                    image.sha256[:12],
                )
            )
    print_table(("image", "SKU", "prompt", "seed", "model", "ms", "sha256"), rows)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
