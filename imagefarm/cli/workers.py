"""`imagefarm workers | drain | resume`: lists, drains and resumes workers."""

from __future__ import annotations

from typing import Annotated

import typer

from imagefarm.cli.connection import Key, Url, connect
from imagefarm.cli.output import AsJson, print_json, print_table

Name = Annotated[str, typer.Argument(metavar="WORKER", help="Id or name of a worker.")]


def register(app: typer.Typer) -> None:
    for command in (workers, drain, resume):
        app.command()(command)


def workers(as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """List the workers and their jobs."""
    with connect(url, key) as farm:
        found = farm.workers.list()
    if as_json:
        print_json([worker.model_dump(mode="json") for worker in found])
        return
    rows = ((worker.name, worker.state, worker.device, ", ".join(worker.resident), worker.id) for worker in found)
    print_table(("worker", "state", "device", "resident models", "id"), rows)


def drain(
    worker: Name,
    reason: Annotated[str, typer.Option(help="The reason, shown with the worker.")] = "",
    url: Url = None,
    key: Key = None,
) -> None:
    """Let a worker finish its jobs and claim no others."""
    with connect(url, key) as farm:
        farm.workers.drain(worker, reason=reason)
    print(f"{worker} is draining")


def resume(worker: Name, url: Url = None, key: Key = None) -> None:
    """Let a drained or quarantined worker claim jobs again."""
    with connect(url, key) as farm:
        farm.workers.resume(worker)
    print(f"{worker} takes jobs again")
