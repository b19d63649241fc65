"""`imagefarm up`: the whole farm on this machine, until Ctrl-C."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from imagefarm.cli.output import note
from imagefarm.settings import load_settings


def register(app: typer.Typer) -> None:
    app.command()(up)


def up(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; an address other than loopback needs keys or users.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 chooses a free one.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the database, the pictures and the logs.")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of render workers.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = None,
) -> None:
    """Run the whole farm on this machine: API and pages, scheduler, workers, and an embedded Redis.

    Prints one line with the URL when it is ready. Ctrl-C drains: running jobs are finished, then everything stops. A second
    Ctrl-C stops at once; unfinished jobs run again at the next start.
    """
    from imagefarm.supervisor.farm import EmbeddedFarm

    farm = EmbeddedFarm(load_settings(host=host, port=port, data_dir=data, workers=workers, device=device))
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            farm.hurry.set()
        stop.set()
        farm.interrupted.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    farm.start()
    print(f"imagefarm is ready: {farm.url}  (data: {farm.settings.data_dir}, stop with Ctrl-C)", flush=True)
    stop.wait()
    note("imagefarm is stopping: running jobs are finished first (Ctrl-C again stops at once)")
    farm.stop()
