"""Activity over an hour, a day or a week, for charts, from a few small rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from imagefarm.store import db_now
from imagefarm.store.models import Rollup
from scheduler.metrics.rollup import HOUR, MAX_MINUTES, MINUTE, MetricBucket, bucket_of, measure, quantile

Period = Literal["hour", "day", "week"]
PERIODS: dict[str, tuple[int, int, int]] = {
    "hour": (3600, MINUTE, MINUTE),
    "day": (86400, 900, MINUTE),
    "week": (7 * 86400, 7200, HOUR),
}
"""By name: length of the period, length of a point, and length of the rows it is made of, in seconds."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """A period in points: their start times and their totals."""

    period: str
    step: int
    buckets: tuple[tuple[int, MetricBucket], ...]


def statistics(session: Session, period: str) -> Statistics:
    """The period up to now: the rows that the sweep has written, and the minutes since then, counted now."""
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
    if made_of == HOUR:  # model loads of minutes that are not in an hour's row yet
        uncounted = select(Rollup).where(Rollup.step == MINUTE, ~Rollup.counted, Rollup.at >= fresh, Rollup.at <= now)
        for row in session.scalars(uncounted):
            buckets[max(first, row.at - row.at % step)].loads += row.loads
    return Statistics(period, step, tuple(sorted(buckets.items())))


def spread(histogram: MetricBucket, name: Literal["wait", "render"]) -> tuple[float | None, float | None]:
    """The p50 and p95 latency of a bucket."""
    counts = histogram.wait if name == "wait" else histogram.render
    return quantile(counts, 0.5), quantile(counts, 0.95)
