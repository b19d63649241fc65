"""What the farm did over an hour, a day or a week, and what each tenant took of it: for charts, from a few small rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.context import Farm
from api.routes import Routes
from api.shapes import Answer, Query, Time
from imagefarm.auth import Caller, Scope
from imagefarm.store import db_now
from imagefarm.store.models import Backlog, Rollup, Tenant, Usage
from scheduler.limits import DAY_S
from scheduler.rollup import HOUR, MINUTE, MOST_MINUTES, Span, measure, quantile, span_of, total

routes = Routes(tag="queue")

Period = Literal["hour", "day", "week"]
PERIODS: dict[str, tuple[int, int, int]] = {
    "hour": (3600, MINUTE, MINUTE),
    "day": (86400, 900, MINUTE),
    "week": (7 * 86400, 7200, HOUR),
}
"""By name: how far back, how long each point is, and the rows it is made of, in seconds."""
MOST_TENANTS = 200


class Spread(Answer):
    """A latency in seconds: the middle one, and that which one in twenty exceeds. null without jobs."""

    p50: float | None
    p95: float | None


class Point(Answer):
    """What happened in one piece of the period, which begins at `at`."""

    at: Time
    images: int
    troubles: int = Field(description="Attempts that failed, crashed, or had to be made again")
    loads: int = Field(description="Models that workers loaded: the first time, or after another had been dropped for it")
    gpu_seconds: float
    wait: Spread = Field(description="From submit to start")
    render: Spread = Field(description="From start to stored")


class StatisticsAnswer(Answer):
    """A period: all of it, and piece by piece."""

    period: Period
    step_s: int
    whole: Point
    points: list[Point]


class StatisticsQuery(Query):
    """Which period, up to now."""

    period: Period = "hour"


class TenantAnswer(Answer):
    """A tenant: its weight, what it has in the queue, and what it asked for today (UTC)."""

    id: str
    name: str
    weight: float
    queued: int
    running: int
    images_today: int
    images_per_day: int | None = Field(description="The limit; null without one")
    max_queued: int
    max_running: int
    pixels: int | None = Field(description="Width times height of a picture at most; null without a limit")
    steps: int | None = Field(description="Steps at most; null without a limit")
    gpu_seconds_today: float = Field(description="Predicted, of what was asked for today")
    share: float = Field(description="Its part of all GPU-seconds asked for today, 0 to 1")
    fair_share: float = Field(description="Its part by weight among those who asked for something today, 0 to 1")


class TenantList(Answer):
    """The tenants who have asked for most today first."""

    items: list[TenantAnswer]
    next_cursor: None = None


@dataclass(frozen=True, slots=True)
class Statistics:
    """A period in pieces: when each begins, and what happened in it."""

    period: str
    step: int
    spans: tuple[tuple[int, Span], ...]


@routes.get("/api/v1/statistics", scope=Scope.ADMIN, answer=StatisticsAnswer)
def get_statistics(farm: Farm, caller: Caller, query: StatisticsQuery) -> StatisticsAnswer:
    """See what the farm did over an hour, a day or a week: pictures, failures, loads, latencies."""
    with farm.store.read() as session:
        found = statistics(session, query.period)
    return StatisticsAnswer(
        period=query.period,
        step_s=found.step,
        whole=_point(found.spans[0][0], total(span for _, span in found.spans)),
        points=[_point(at, span) for at, span in found.spans],
    )


@routes.get("/api/v1/tenants", scope=Scope.ADMIN, answer=TenantList)
def list_tenants(farm: Farm, caller: Caller) -> TenantList:
    """List the tenants with their queues, their use of today and their share."""
    with farm.store.read() as session:
        return TenantList(items=tenants(session, farm))


def statistics(session: Session, period: str) -> Statistics:
    """The period up to now: what the sweep has written down, and the minutes since then, counted now."""
    length, step, made_of = PERIODS[period]
    now = session.scalar(select(db_now())) or 0.0
    first = int((now - length) // step) * step
    spans = {at: Span() for at in range(first, int(now) + 1, step)}
    for row in session.scalars(select(Rollup).where(Rollup.step == made_of, Rollup.at >= first, Rollup.at <= now)):
        spans[row.at - row.at % step].add(span_of(row))
    counted = session.scalar(select(func.max(Rollup.at)).where(Rollup.step == MINUTE, Rollup.counted))
    fresh = max(first, now - MOST_MINUTES * MINUTE, 0 if counted is None else counted + MINUTE)
    for at, span in measure(session, fresh, now + 1).items():
        spans[max(first, at - at % step)].add(span)
    if made_of == HOUR:  # loads of the minutes that no hour has yet
        uncounted = select(Rollup).where(Rollup.step == MINUTE, ~Rollup.counted, Rollup.at >= fresh, Rollup.at <= now)
        for row in session.scalars(uncounted):
            spans[max(first, row.at - row.at % step)].loads += row.loads
    return Statistics(period, step, tuple(sorted(spans.items())))


def spread(histogram: Span, name: Literal["wait", "render"]) -> tuple[float | None, float | None]:
    """The middle latency of a span, and the one that one in twenty exceeds."""
    counts = histogram.wait if name == "wait" else histogram.render
    return quantile(counts, 0.5), quantile(counts, 0.95)


def tenants(session: Session, farm: Farm) -> list[TenantAnswer]:
    """Tenants by what they asked for today."""
    settings = farm.settings
    today = int((session.scalar(select(db_now())) or 0.0) // DAY_S)
    waiting = (
        select(Backlog.tenant_id, func.sum(Backlog.queued).label("queued"), func.sum(Backlog.running).label("running"))
        .group_by(Backlog.tenant_id)
        .subquery()
    )
    rows = session.execute(
        select(Tenant, waiting.c.queued, waiting.c.running, Usage.images, Usage.gpu_s)
        .join(waiting, waiting.c.tenant_id == Tenant.id, isouter=True)
        .join(Usage, (Usage.tenant_id == Tenant.id) & (Usage.day == today), isouter=True)
        .order_by(func.coalesce(Usage.gpu_s, 0.0).desc(), func.coalesce(waiting.c.queued, 0).desc(), Tenant.name)
        .limit(MOST_TENANTS)
    ).all()
    all_gpu_s = sum(row.gpu_s or 0.0 for row in rows)
    weights = sum(row.Tenant.weight for row in rows if row.gpu_s)
    return [
        TenantAnswer(
            id=row.Tenant.id,
            name=row.Tenant.name,
            weight=row.Tenant.weight,
            queued=row.queued or 0,
            running=row.running or 0,
            images_today=row.images or 0,
            images_per_day=row.Tenant.limits.get("images_per_day"),
            max_queued=min(row.Tenant.limits.get("queued", settings.max_queued_per_tenant), settings.max_queued_per_tenant),
            max_running=min(row.Tenant.limits.get("running", settings.max_running_per_tenant), settings.max_running_per_tenant),
            pixels=row.Tenant.limits.get("pixels"),
            steps=row.Tenant.limits.get("steps"),
            gpu_seconds_today=round(row.gpu_s or 0.0, 3),
            share=round((row.gpu_s or 0.0) / all_gpu_s, 4) if all_gpu_s else 0.0,
            fair_share=round(row.Tenant.weight / weights, 4) if row.gpu_s and weights else 0.0,
        )
        for row in rows
    ]


def _point(at: int, span: Span) -> Point:
    wait, render = spread(span, "wait"), spread(span, "render")
    return Point(
        at=float(at),
        images=span.images,
        troubles=span.troubles,
        loads=span.loads,
        gpu_seconds=round(span.gpu_s, 3),
        wait=Spread(p50=_rounded(wait[0]), p95=_rounded(wait[1])),
        render=Spread(p50=_rounded(render[0]), p95=_rounded(render[1])),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
