"""The farm's work over an hour, a day or a week, for charts."""

from __future__ import annotations

from pydantic import Field

from api.http.context import AppContext
from api.http.routes import Routes
from api.http.schemas import Query, ResponseModel, Time
from imagefarm.auth import Caller, Scope
from scheduler.metrics.rollup import MetricBucket, total
from scheduler.metrics.statistics import Period, spread, statistics

routes = Routes(tag="queue")


class Spread(ResponseModel):
    """The median and the 95th percentile of a latency in seconds. null without jobs."""

    p50: float | None
    p95: float | None


class Point(ResponseModel):
    """The totals of one interval, which begins at `at`."""

    at: Time
    images: int
    failures: int = Field(description="Attempts that failed, crashed or were retried")
    loads: int = Field(description="Models that workers loaded, including reloads")
    gpu_seconds: float
    wait: Spread = Field(description="From submit to start")
    render: Spread = Field(description="From start to stored")


class StatisticsResponse(ResponseModel):
    """The totals of a period and of its intervals of `step_s` seconds."""

    period: Period
    step_s: int
    whole: Point
    points: list[Point]


class StatisticsQuery(Query):
    """The period, which ends now."""

    period: Period = "hour"


@routes.get("/api/v1/statistics", scope=Scope.FARM, response=StatisticsResponse)
def get_statistics(app_context: AppContext, caller: Caller, query: StatisticsQuery) -> StatisticsResponse:
    """Get the farm's images, failures, model loads and latencies over an hour, a day or a week."""
    with app_context.store.read() as session:
        found = statistics(session, query.period)
    return StatisticsResponse(
        period=query.period,
        step_s=found.step,
        whole=_point(found.buckets[0][0], total(bucket for _, bucket in found.buckets)),
        points=[_point(at, bucket) for at, bucket in found.buckets],
    )


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
