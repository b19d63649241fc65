"""What the farm did over an hour, a day or a week, from SQL: pictures and failures by time, waits and renders."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Integer, cast, func, select
from sqlalchemy.orm import Session

from imagefarm.auth import Caller
from imagefarm.ids import first_id_at
from imagefarm.states import JobState
from imagefarm.store import db_now
from imagefarm.store.models import Attempt, Image, Job

PERIODS: dict[str, tuple[float, float]] = {"hour": (3600.0, 60.0), "day": (86400.0, 900.0), "week": (7 * 86400.0, 7200.0)}
"""By name: how far back, and how long each bucket is, in seconds."""
SAMPLE = 1000
"""Newest jobs of which waits and renders are measured."""
TROUBLE = ("failed", "retry", "crashed")


@dataclass(frozen=True, slots=True)
class Spread:
    """A latency in seconds: the middle one, and that which one in twenty exceeds. None without jobs."""

    p50: float | None
    p95: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """The curves. `series` is JSON for the chart: times, pictures, failed attempts."""

    period: str
    series: str
    pictures: int
    failures: int
    wait: Spread
    render: Spread


def throughput(session: Session, caller: Caller, period: str) -> Throughput:
    """What was made in the period, as this caller may see it."""
    length, step = PERIODS[period]
    now = session.scalar(select(db_now())) or 0.0
    first = (now - length) // step
    buckets = [first + number for number in range(int(length // step) + 1)]
    mine = [] if caller.tenant_filter is None else [Image.tenant_id == caller.tenant_filter]
    bucket = cast(func.floor(Image.created_at / step), Integer)
    made = dict(
        session.execute(
            select(bucket, func.count()).where(Image.id >= first_id_at("img", first * step), *mine).group_by(bucket)
        ).all()
    )
    ended = cast(func.floor(Attempt.ended_at / step), Integer)
    trouble = select(ended, func.count()).where(Attempt.ended_at >= first * step, Attempt.outcome.in_(TROUBLE)).group_by(ended)
    if caller.tenant_filter is not None:
        trouble = trouble.join(Job, Job.id == Attempt.job_id).where(Job.tenant_id == caller.tenant_filter)
    failed = dict(session.execute(trouble).all())
    pictures = [made.get(int(one), 0) for one in buckets]
    failures = [failed.get(int(one), 0) for one in buckets]
    wait, render = _latencies(session, caller, now - length)
    return Throughput(
        period=period,
        series=json.dumps([[one * step for one in buckets], pictures, failures]),
        pictures=sum(pictures),
        failures=sum(failures),
        wait=wait,
        render=render,
    )


def _latencies(session: Session, caller: Caller, since: float) -> tuple[Spread, Spread]:
    statement = (
        select(Job.created_at, Job.started_at, Job.finished_at)
        .where(Job.state == JobState.SUCCEEDED, Job.started_at.is_not(None), Job.finished_at > since)
        .order_by(Job.id.desc())
        .limit(SAMPLE)
    )
    if caller.tenant_filter is not None:
        statement = statement.where(Job.tenant_id == caller.tenant_filter)
    rows = session.execute(statement).all()
    return (
        _spread([row.started_at - row.created_at for row in rows]),
        _spread([row.finished_at - row.started_at for row in rows]),
    )


def _spread(values: list[float]) -> Spread:
    if not values:
        return Spread(None, None)
    ordered = sorted(max(0.0, value) for value in values)
    return Spread(ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)])
