"""`imagefarm api | worker | scheduler | migrate`: one service, for compose and for hosts that run one service."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from imagefarm.cli.output import note
from imagefarm.private_files import make_private_folder
from imagefarm.settings import Settings, load_settings
from imagefarm.supervisor import services
from imagefarm.supervisor.services import Service


def register(app: typer.Typer) -> None:
    for command in (api, worker, scheduler, migrate):
        app.command()(command)


def api(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Run the API and the pages."""
    _become(services.api(), load_settings(host=host, port=port))


def worker(
    name: Annotated[str | None, typer.Option(help="Name of this worker; the default is the host's name.")] = None,
    models: Annotated[
        str | None, typer.Option(help="Models that the worker serves, separated by commas; the default is all.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")] = None,
) -> None:
    """Run one render worker."""
    serves = [model.strip() for model in models.split(",")] if models else None
    settings = load_settings(worker_name=name, worker_models=serves, device=device)
    _become(services.worker(settings, settings.worker_name or socket.gethostname()), settings)


def scheduler() -> None:
    """Run the scheduler: Celery beat and the worker of the sweep."""
    from imagefarm.supervisor.managed_process import ManagedProcess
    from imagefarm.supervisor.watchdog import Watchdog

    settings = load_settings()
    make_private_folder(settings.data_dir)
    (settings.data_dir / "run").mkdir(exist_ok=True)
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    watchdog = Watchdog()
    processes = [
        ManagedProcess(service, services.environment(settings, service), watchdog=watchdog, say=note, cwd=Path.cwd(), log=None)
        for service in (services.sweep(), services.beat())
    ]
    for process in processes:
        process.start()
    stop.wait()
    for process in processes:
        process.stop()
    for process in processes:
        if not process.wait(process.service.grace_s):
            process.kill()
    watchdog.close()


def migrate(
    revision: Annotated[str, typer.Argument(help="Target revision; an older one downgrades.")] = "head",
) -> None:
    """Migrate the database to the schema of this version."""
    from imagefarm.settings import redacted
    from imagefarm.store import Store
    from imagefarm.store.migrate import migrate as run

    settings = load_settings()
    store = Store(settings.database, pool_size=1)
    at = run(store, revision)
    store.close()
    print(f"{redacted(settings.database)} is at revision {at or 'base'}")


def _become(service: Service, settings: Settings) -> None:
    """Replace this process by the service, so that signals reach the service and its exit code is returned."""
    os.execvpe(service.command[0], list(service.command), services.environment(settings, service))  # noqa: S606 - that is the point
