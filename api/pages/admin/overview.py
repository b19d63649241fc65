"""`/admin`: the farm's state, charts, lanes, tenants, the newest images, and live events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from flask import Response, request

from api.http.context import AppContext
from api.pages.admin.audit import RecentEvent, recent_event
from api.pages.job_cards import Picture, picture
from api.pages.registry import Pages
from api.pages.rendering import page
from api.v1.schemas.tenants import TenantResponse, tenant_responses
from imagefarm.auth import Caller, Scope
from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.messages import N_
from imagefarm.store.events import find_events
from imagefarm.store.images import newest_images
from scheduler.metrics.farm_view import FarmView
from scheduler.metrics.read_farm import read_farm
from scheduler.metrics.rollup import MetricBucket, total
from scheduler.metrics.statistics import PERIODS, Statistics, spread, statistics

pages = Pages("pages_admin")

EVENTS_SHOWN = 20
PICTURES_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One chart. `series` is JSON for the script: the times, then each curve. `tones` names the colour of each curve."""

    title: str
    kind: str
    series: str
    names: tuple[str, ...]
    tones: str
    unit: str = ""
    numbers: tuple[tuple[str, float | None], ...]


@dataclass(frozen=True, slots=True)
class LastPicture:
    """A new image and its job."""

    picture: Picture
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewView:
    """The data of the overview page."""

    farm: FarmView
    period: str
    periods: tuple[str, ...]
    charts: tuple[Chart, ...]
    tenants: tuple[TenantResponse, ...]
    pictures: tuple[LastPicture, ...]
    events: tuple[RecentEvent, ...]


@pages.get("/admin", scope=Scope.FARM)
def admin_page(app_context: AppContext, caller: Caller) -> Response:
    """Show the overview."""
    period = request.args.get("period", "hour")
    if period not in PERIODS:
        raise InvalidRequest([FieldError(field="period", detail="is unknown", remedy="use one of " + ", ".join(PERIODS))])
    redis_up = app_context.redis_health.is_up()
    with app_context.store.read() as session:
        view = OverviewView(
            farm=read_farm(
                session,
                app_context.catalogue,
                caller,
                redis_is_up=redis_up,
                read_steps=app_context.progress.read,
                detailed=True,
            ),
            period=period,
            periods=tuple(PERIODS),
            charts=charts(statistics(session, period)),
            tenants=tuple(tenant_responses(session, app_context.settings)),
            pictures=tuple(LastPicture(picture(row), row.job_id) for row in newest_images(session, None, PICTURES_SHOWN)),
            events=tuple(map(recent_event, find_events(session, limit=EVENTS_SHOWN))),
        )
    return page("admin/overview.html", view)


def charts(found: Statistics) -> tuple[Chart, ...]:
    """The four charts of a period."""
    whole = total(bucket for _, bucket in found.buckets)
    times = [at for at, _ in found.buckets]

    def counts(*names: str) -> str:
        return json.dumps([times, *[[getattr(bucket, name) for _, bucket in found.buckets] for name in names]])

    def latencies(buckets: Sequence[tuple[int, MetricBucket]], name: str) -> str:
        pairs = [spread(bucket, name) for _, bucket in buckets]  # type: ignore[arg-type]
        return json.dumps([times, *[[None if p[n] is None else round(p[n], 3) for p in pairs] for n in (0, 1)]])  # type: ignore[arg-type]

    wait, render = spread(whole, "wait"), spread(whole, "render")
    percentiles = (N_("Median"), N_("95th percentile"))
    return (
        Chart(
            title=N_("Pictures rendered"),
            kind="bars",
            series=counts("images"),
            names=(N_("Pictures"),),
            tones="accent",
            numbers=(("Pictures", whole.images), (N_("GPU time"), whole.gpu_s)),
        ),
        Chart(
            title=N_("Failures and model loads"),
            kind="bars",
            series=counts("failures", "loads"),
            names=(N_("Failed attempts"), N_("Model loads")),
            tones="bad busy",
            numbers=(("Failed attempts", whole.failures), ("Model loads", whole.loads)),
        ),
        Chart(
            title=N_("Wait"),
            kind="lines",
            unit="s",
            series=latencies(found.buckets, "wait"),
            names=percentiles,
            tones="accent warn",
            numbers=tuple(zip(percentiles, wait, strict=True)),
        ),
        Chart(
            title=N_("Render"),
            kind="lines",
            unit="s",
            series=latencies(found.buckets, "render"),
            names=percentiles,
            tones="accent warn",
            numbers=tuple(zip(percentiles, render, strict=True)),
        ),
    )
