"""`imagefarm health`: the state of a service on this host, for health checks of containers and supervisors."""

from __future__ import annotations

import socket
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from imagefarm.errors import ConfigurationError

if TYPE_CHECKING:
    from imagefarm.settings import Settings

SILENT_S = 60.0


class Part(StrEnum):
    API = "api"
    SCHEDULER = "scheduler"
    WORKER = "worker"


def register(app: typer.Typer) -> None:
    app.command()(health)


def health(part: Annotated[Part, typer.Argument(help="api, scheduler or worker.")]) -> None:
    """Check whether a service works; exit code 3 if not. The check uses the service's last activity, not its process."""
    from imagefarm.settings import load_settings

    settings = load_settings()
    age = _api(settings) if part is Part.API else _age(part, settings)
    if age is None or age > SILENT_S:
        raise ConfigurationError(
            f"{part} is not well: " + ("nothing was heard of it yet" if age is None else f"silent for {age:.0f} s")
        )
    print(f"{part} is well")


def _api(settings: Settings) -> float | None:
    """0 if this host's API is ready."""
    import httpx

    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    try:
        response = httpx.get(f"http://{host}:{settings.port}/readyz", timeout=5, trust_env=False)
    except httpx.TransportError:
        return None
    return 0.0 if response.is_success else None


def _age(part: Part, settings: Settings) -> float | None:
    """Seconds, on the database's clock, since the last sweep or since the last heartbeat of this host's worker; None for
    never."""
    from sqlalchemy import func, select

    from imagefarm.states import WorkerState
    from imagefarm.store import Store, db_now
    from imagefarm.store.models import SweepState, Worker

    statement = select(db_now() - func.max(SweepState.last_at))
    if part is Part.WORKER:
        statement = select(db_now() - func.max(Worker.heartbeat_at)).where(
            Worker.host == socket.gethostname(), Worker.state != WorkerState.OFFLINE
        )
    store = Store(settings.database, pool_size=1)
    try:
        with store.read() as session:
            return session.scalar(statement)
    finally:
        store.close()
