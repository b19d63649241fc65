"""What the farm did over an hour, a day or a week: for charts, from a few small rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.http.context import AppContext
from api.http.routes import Routes
from api.http.schemas import Query, ResponseModel, Time
from imagefarm.auth import Caller, Scope
from imagefarm.store import db_now
from imagefarm.store.models import Rollup
from scheduler.metrics.rollup import HOUR, MAX_MINUTES, MINUTE, MetricBucket, bucket_of, measure, quantile, total

routes = Routes(tag="queue")

Period = Literal["hour", "day", "week"]
PERIODS: dict[str, tuple[int, int, int]] = {
    "hour": (3600, MINUTE, MINUTE),
    "day": (86400, 900, MINUTE),
    "week": (7 * 86400, 7200, HOUR),
}
"""By name: how far back, how long each point is, and the rows it is made of, in seconds."""


class Spread(ResponseModel):
    """A latency in seconds: the middle one, and that which one in twenty exceeds. null without jobs."""

    p50: float | None
    p95: float | None


class Point(ResponseModel):
    """What happened in one piece of the period, which begins at `at`."""

    at: Time
    images: int
    failures: int = Field(description="Attempts that failed, crashed, or had to be made again")
    loads: int = Field(description="Models that workers loaded: the first time, or after another had been dropped for it")
    gpu_seconds: float
    wait: Spread = Field(description="From submit to start")
    render: Spread = Field(description="From start to stored")


class StatisticsResponse(ResponseModel):
    """A period: all of it, and piece by piece."""

    period: Period
    step_s: int
    whole: Point
    points: list[Point]


class StatisticsQuery(Query):
    """Which period, up to now."""

    period: Period = "hour"


@dataclass(frozen=True, slots=True)
class Statistics:
    """A period in pieces: when each begins, and what happened in it."""

    period: str
    step: int
    buckets: tuple[tuple[int, MetricBucket], ...]


@routes.get("/api/v1/statistics", scope=Scope.ADMIN, response=StatisticsResponse)
def get_statistics(app_context: AppContext, caller: Caller, query: StatisticsQuery) -> StatisticsResponse:
    """See what the farm did over an hour, a day or a week: pictures, failures, loads, latencies."""
    with app_context.store.read() as session:
        found = statistics(session, query.period)
    return StatisticsResponse(
        period=query.period,
        step_s=found.step,
        whole=_point(found.buckets[0][0], total(bucket for _, bucket in found.buckets)),
        points=[_point(at, bucket) for at, bucket in found.buckets],
    )


def statistics(session: Session, period: str) -> Statistics:
    """The period up to now: what the sweep has written down, and the minutes since then, counted now."""
    length, step, made_of = PERIODS[period]
    now = session.scalar(select(db_now())) or 0.0
    first = int((now - length) // step) * step
    buckets = {at: MetricBucket() for at in range(first, int(now) + 1, step)}
    for row in session.scalars(select(Rollup).where(Rollup.step == made_of, Rollup.at >= first, Rollup.at <= now)):
        buckets[row.at - row.at % step].add(bucket_of(row))
    counted = session.scalar(select(func.max(Rollup.at)).where(Rollup.step == MINUTE, Rollup.counted))
    fresh = max(first, now - MAX_MINUTES * MINUTE, 0 if counted is None else counted + MINUTE)
    for at, bucket in measure(session, fresh, now + 1).items():
        buckets[max(first, at - at % step)].add(bucket)
    if made_of == HOUR:  # loads of the minutes that no hour has yet
        uncounted = select(Rollup).where(Rollup.step == MINUTE, ~Rollup.counted, Rollup.at >= fresh, Rollup.at <= now)
        for row in session.scalars(uncounted):
            buckets[max(first, row.at - row.at % step)].loads += row.loads
    return Statistics(period, step, tuple(sorted(buckets.items())))


def spread(histogram: MetricBucket, name: Literal["wait", "render"]) -> tuple[float | None, float | None]:
    """The middle latency of a bucket, and the one that one in twenty exceeds."""
    counts = histogram.wait if name == "wait" else histogram.render
    return quantile(counts, 0.5), quantile(counts, 0.95)


def _point(at: int, bucket: MetricBucket) -> Point:
    wait, render = spread(bucket, "wait"), spread(bucket, "render")
    return Point(
        at=float(at),
        images=bucket.images,
        failures=bucket.failures,
        loads=bucket.loads,
        gpu_seconds=round(bucket.gpu_s, 3),
        wait=Spread(p50=_rounded(wait[0]), p95=_rounded(wait[1])),
        render=Spread(p50=_rounded(render[0]), p95=_rounded(render[1])),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
