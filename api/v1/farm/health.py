"""Liveness and readiness, for supervisors and load balancers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from typing import Literal

from pydantic import Field
from redis.exceptions import RedisError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from api.http.context import AppContext
from api.http.routes import Reply, Routes
from api.http.schemas import ResponseModel
from imagefarm.store.models import SweepState
from imagefarm.version import __version__

routes = Routes(tag="health")

CHECK_TIMEOUT_S = 2.0
_checks = ThreadPoolExecutor(max_workers=4, thread_name_prefix="readiness")


class Alive(ResponseModel):
    """The process responds."""

    status: Literal["ok"]
    version: str


class Ready(ResponseModel):
    """Whether the farm can accept work, and the state of its parts."""

    status: Literal["ready", "not ready"]
    database: str
    redis: str
    requests_unchecked: int = Field(
        description="Requests that this process passed without a check of the limit, because Redis was unavailable"
    )


@routes.get("/healthz", scope=None, response=Alive)
def healthz() -> Alive:
    """Check that the process is alive. It contacts no other service."""
    return Alive(status="ok", version=__version__)


@routes.get("/readyz", scope=None, response=Ready, extra_statuses=(503,))
def readyz(app_context: AppContext) -> Reply:
    """Check that the database and Redis respond. 503 names the part that does not."""

    def database() -> None:
        with app_context.store.read() as session:
            session.scalar(select(SweepState.id).limit(1))

    found = {"database": _ask(database, SQLAlchemyError), "redis": _ask(app_context.redis.ping, RedisError)}
    ready = set(found.values()) == {"ok"}
    return Reply(
        Ready(status="ready" if ready else "not ready", **found, requests_unchecked=app_context.requests.unchecked),
        200 if ready else 503,
    )


def _ask(check: Callable[[], object], failure: type[Exception]) -> str:
    """Return `ok` or `away`. A thread runs the check, because a frozen server would block the caller."""
    future = _checks.submit(check)
    try:
        future.result(CHECK_TIMEOUT_S)
    except (failure, OSError, Late):
        return "away"
    return "ok"
