"""What the farm did over an hour, a day or a week: for charts, from a few small rows."""

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
from imagefarm.store.models import Rollup
from scheduler.rollup import HOUR, MINUTE, MOST_MINUTES, Span, measure, quantile, span_of, total

routes = Routes(tag="queue")

Period = Literal["hour", "day", "week"]
PERIODS: dict[str, tuple[int, int, int]] = {
    "hour": (3600, MINUTE, MINUTE),
    "day": (86400, 900, MINUTE),
    "week": (7 * 86400, 7200, HOUR),
}
"""By name: how far back, how long each point is, and the rows it is made of, in seconds."""


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
