"""Totals per minute and per hour, so that a chart of a week reads no jobs.

The sweep writes every finished minute, and the minute before it once more, from that minute's images and attempts. Repeating it
gives the same rows. Latencies are histograms with steps of ten percent, because histograms can be added and percentiles cannot.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from imagefarm.ids import first_id_at
from imagefarm.store import db_now
from imagefarm.store.models import IS_FAILURE, Attempt, Image, Job, Rollup

MINUTE, HOUR = 60, 3600
KEEP_S = {MINUTE: 2 * 86400, HOUR: 400 * 86400}
LATE_S = 5
"""Seconds after which a minute counts as finished, because its last transactions have committed."""
MAX_MINUTES = 120
"""Most minutes that one sweep catches up."""
CLOCKS_S = 300
"""Largest difference in seconds between a worker's clock, which makes ids, and the database's."""
FINEST_S, RATIO = 0.01, 1.1


@dataclass(slots=True)
class MetricBucket:
    """Totals of an interval. Latencies are counts per step of the histogram."""

    images: int = 0
    failures: int = 0
    loads: int = 0
    gpu_s: float = 0.0
    wait: Counter[int] = field(default_factory=Counter)
    render: Counter[int] = field(default_factory=Counter)

    def add(self, other: MetricBucket) -> None:
        """Add the totals of another interval."""
        self.images += other.images
        self.failures += other.failures
        self.loads += other.loads
        self.gpu_s += other.gpu_s
        self.wait.update(other.wait)
        self.render.update(other.render)


def step_of(seconds: float) -> int:
    """The histogram step of a latency; each step is a tenth wider than the one before."""
    return max(0, math.ceil(math.log(max(seconds, FINEST_S) / FINEST_S) / math.log(RATIO)))


def quantile(histogram: Counter[int], part: float) -> float | None:
    """The latency that `part` of all values do not exceed, to five percent; None if there are none."""
    left = part * histogram.total()
    for step in sorted(histogram):
        left -= histogram[step]
        if left <= 0:
            return float(FINEST_S * RATIO ** (step - 0.5))
    return None


def measure(session: Session, since: float, until: float) -> dict[int, MetricBucket]:
    """The totals of each minute from `since` to before `until`, counted from the jobs themselves."""
    buckets: dict[int, MetricBucket] = {}

    def bucket(at: float) -> MetricBucket:
        return buckets.setdefault(int(at // MINUTE) * MINUTE, MetricBucket())

    made = (
        select(Image.created_at, Image.index, Job.created_at, Job.started_at, Job.finished_at, Job.actual_s)
        .join(Job, Job.id == Image.job_id)
        .where(
            Image.id >= first_id_at("img", since - CLOCKS_S),
            Image.id < first_id_at("img", until + CLOCKS_S),
            Image.created_at >= since,
            Image.created_at < until,
        )
    )
    for at, index, submitted_at, started_at, finished_at, actual_s in session.execute(made):
        one = bucket(at)
        one.images += 1
        if index == 0 and started_at is not None and finished_at is not None:
            one.gpu_s += actual_s or 0.0
            one.wait[step_of(started_at - submitted_at)] += 1
            one.render[step_of(finished_at - started_at)] += 1
    wrong = select(Attempt.ended_at).where(Attempt.ended_at >= since, Attempt.ended_at < until, IS_FAILURE)
    for ended_at in session.scalars(wrong):
        bucket(ended_at or since).failures += 1
    return buckets


def roll(session: Session, now: float) -> int:
    """Write the finished minutes, in the caller's transaction; return how many."""
    over = int((now - LATE_S) // MINUTE) * MINUTE
    last = session.scalar(select(func.max(Rollup.at)).where(Rollup.step == MINUTE, Rollup.counted))
    if last is not None and last + MINUTE >= over:
        return 0
    first = last if last is not None else _beginning(session, over)
    until = min(over, first + MAX_MINUTES * MINUTE)
    buckets = measure(session, first, until)
    for at in range(first, until, MINUTE):
        _write(session, MINUTE, at, buckets.get(at, MetricBucket()))
    session.flush()
    for hour in range(first - first % HOUR, until, HOUR):
        rows = session.scalars(select(Rollup).where(Rollup.step == MINUTE, Rollup.at >= hour, Rollup.at < hour + HOUR))
        whole = total(bucket_of(row) for row in rows)
        _write(session, HOUR, hour, whole)
        session.get_one(Rollup, (HOUR, hour)).loads = whole.loads
    for step, keep in KEEP_S.items():
        session.execute(delete(Rollup).where(Rollup.step == step, Rollup.at < now - keep))
    return (until - first) // MINUTE


def count_load(session: Session) -> None:
    """Count a model load of a worker in the current minute."""
    bind = session.get_bind()
    statement = (sqlite if bind.dialect.name == "sqlite" else postgresql).insert(Rollup)
    at = int((session.scalar(select(db_now())) or 0.0) // MINUTE) * MINUTE
    empty = {"images": 0, "failures": 0, "gpu_s": 0.0, "wait": {}, "render": {}, "counted": False}
    session.execute(
        statement.values(step=MINUTE, at=at, loads=1, **empty).on_conflict_do_update(
            index_elements=[Rollup.step, Rollup.at], set_={"loads": Rollup.loads + 1}
        )
    )


def total(buckets: Iterable[MetricBucket]) -> MetricBucket:
    """The sum of all of them."""
    whole = MetricBucket()
    for bucket in buckets:
        whole.add(bucket)
    return whole


def bucket_of(row: Rollup) -> MetricBucket:
    """A stored row as a bucket."""
    histograms = [Counter({int(step): number for step, number in kept.items()}) for kept in (row.wait, row.render)]
    return MetricBucket(row.images, row.failures, row.loads, row.gpu_s, *histograms)


def _write(session: Session, step: int, at: int, bucket: MetricBucket) -> None:
    row = session.get(Rollup, (step, at))
    if row is None:
        row = Rollup(step=step, at=at, loads=0)
        session.add(row)
    row.images, row.failures, row.gpu_s, row.counted = bucket.images, bucket.failures, bucket.gpu_s, True
    row.wait = {str(key): number for key, number in sorted(bucket.wait.items())}
    row.render = {str(key): number for key, number in sorted(bucket.render.items())}


def _beginning(session: Session, over: int) -> int:
    """The minute of the oldest image, at most as far back as minutes are kept."""
    oldest = session.scalar(select(Image.created_at).order_by(Image.id).limit(1))
    kept = over - KEEP_S[MINUTE]
    return over - MINUTE if oldest is None else int(max(oldest, kept) // MINUTE) * MINUTE
