"""Events: the stream of one job, the live stream for pages, and the audit log with its verification."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

from flask import Response
from pydantic import AfterValidator, Field

from api.http.context import AppContext
from api.http.cursor import make_cursor, read_cursor
from api.http.event_stream import FOR_ALL, POLL_S, text_of
from api.http.links import base_url, next_link
from api.http.routes import LAST_EVENT_ID, Reply, Routes
from api.http.schemas import Query, ResponseModel, Time, rfc3339
from api.http.sse import HEARTBEAT, HEARTBEAT_S, MEDIA, RETRY, event_text, last_event_id, stream
from api.http.stream_access import StreamAccess
from api.live.event_fanout import CLOSE, EventFanout, Subscription
from api.v1.schemas.jobs import job_response
from imagefarm.auth import Caller, Scope
from imagefarm.logs import get_logger
from imagefarm.states import JobState
from imagefarm.store import DATABASE_AWAY, audit, events
from imagefarm.store.jobs import visible_job
from imagefarm.store.models import Job
from imagefarm.text import check_text

log = get_logger(__name__)
routes = Routes(tag="events")

MIN_PACE_MS, PACE_MS_PER_PAGE = 200, 6


class AuditEvent(ResponseModel):
    """One audited event. `seq` and `hash` are its position in the chain, null until the next sweep seals it."""

    id: int
    at: Time
    kind: str
    subject: str
    tenant_id: str | None
    data: dict[str, Any]
    seq: int | None
    hash: str | None


class AuditEventList(ResponseModel):
    """A page of the audit log, newest first."""

    items: list[AuditEvent]
    next_cursor: str | None


class EventQuery(Query):
    """Which events to list."""

    subject: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(check_text)] | None = Field(
        None, description="Id of a job, image, worker ..."
    )
    kind: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(check_text)] | None = Field(
        None, description=f"A prefix of the kind: `job.`, `key.created` ...; searches the newest {events.LOOKED_AT:,} events"
    )
    tenant: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(check_text)] | None = Field(
        None, description=f"Id of a tenant; searches the newest {events.LOOKED_AT:,} events"
    )
    limit: int = Field(50, ge=1, le=200)
    cursor: Annotated[str, Field(max_length=200)] | None = None


class ChainResponse(ResponseModel):
    """Whether the hash chain of audited events is intact."""

    whole: bool
    sealed: int = Field(description="Events in the chain")
    unsealed: int = Field(description="Events that the next sweep will seal")
    head: str = Field(description="Hash of the last sealed event; a copy kept elsewhere also reveals a truncated chain")
    broken_at: int | None = Field(description="Position of the first event whose hash is wrong; null if the chain is intact")
    detail: str


@routes.get(
    "/api/v1/jobs/{job_id}/events", scope=Scope.READ, media=MEDIA, extra_statuses=(204,), errors=(503,), headers=(LAST_EVENT_ID,)
)
def job_events(app_context: AppContext, caller: Caller, job_id: str) -> Response:
    """Follow a job as server-sent events.

    `job` carries the whole job, at the beginning and after every change. `job.claimed`, `job.succeeded` and so on carry the
    change, with an id. `progress` carries a step and, for a job with `preview`, new previews: `previews` is a list of objects
    with `index`, `step`, `width`, `height`, `media` and `data` (base64). The stream ends when the job ends. With `Last-Event-ID`
    it continues after that event. If no event can follow, the response is 204, which makes browsers stop reconnecting. A stream
    ends within 15 s after its key is revoked, and when its token expires.
    """
    last = last_event_id()
    with app_context.store.read() as session:
        job = visible_job(session, job_id, caller.tenant_filter)
        if last and JobState(job.state).is_final and not events.events_of(session, job_id, 1, after=last):
            return Response(status=204)
    subscription = app_context.events.subscribe(lambda event: event.get("subject") == job_id or event["kind"] in FOR_ALL)
    texts = _follow_job(app_context, job_id, base_url(), last, subscription, access=StreamAccess(caller))
    return stream(texts, partial(app_context.events.unsubscribe, subscription))


@routes.get("/api/v1/events/stream", scope=Scope.READ, media=MEDIA, errors=(503,))
def live_events(app_context: AppContext, caller: Caller) -> Response:
    """Follow all events that you may see as live server-sent events.

    An event's name is its kind (`job.progress`, `job.succeeded`, `worker.offline` ...), its data has `subject` and `data`.
    Nothing is replayed: read the lists at the beginning and after `away` (Redis is unavailable: poll), `back` (Redis is available
    again) and `bulk.changed` (a bulk change). `pace` is the shortest interval, in milliseconds, at which a page should read the
    lists. The stream ends within 15 s after its key is revoked, and when its token expires.
    """
    subscription = app_context.events.subscribe(lambda event: event["kind"] in FOR_ALL or caller.can_see(event.get("tenant_id")))
    texts = _follow_all(app_context.events, subscription, StreamAccess(caller))
    return stream(texts, partial(app_context.events.unsubscribe, subscription))


@routes.get("/api/v1/events", scope=Scope.ADMIN, response=AuditEventList)
def list_events(app_context: AppContext, caller: Caller, query: EventQuery) -> Reply:
    """List audited events, newest first, optionally of one subject, kind or tenant."""
    asked = f"events {caller.tenant_filter} {query.subject} {query.kind} {query.tenant}"
    before = read_cursor(query.cursor, asked, form=_is_number)
    with app_context.store.read() as session:
        rows = events.find_events(
            session,
            limit=query.limit + 1,
            before=None if before is None else int(before),
            subject=query.subject or "",
            kind=query.kind or "",
            tenant=query.tenant or "",
            visible_to=caller.tenant_filter,
        )
    cursor = make_cursor(str(rows[query.limit - 1].id), asked) if len(rows) > query.limit else None
    items = [
        AuditEvent(
            id=row.id,
            at=row.at,
            kind=row.kind,
            subject=row.subject,
            tenant_id=row.tenant_id,
            data=row.data,
            seq=row.seq,
            hash=row.hash,
        )
        for row in rows[: query.limit]
    ]
    return Reply(AuditEventList(items=items, next_cursor=cursor), headers=next_link(cursor))


@routes.get("/api/v1/audit/verify", scope=Scope.FARM, response=ChainResponse)
def verify_audit(app_context: AppContext, caller: Caller) -> ChainResponse:
    """Verify the whole audit chain."""
    with app_context.store.read() as session:
        report = audit.verify(session)
    return ChainResponse(
        whole=report.whole,
        sealed=report.sealed,
        unsealed=report.unsealed,
        head=report.head,
        broken_at=report.broken_at,
        detail=report.detail,
    )


def _is_number(text: str) -> bool:
    return text.isdigit() and len(text) <= 18


def _follow_job(
    app_context: AppContext, job_id: str, base: str, last: int, subscription: Subscription, *, access: StreamAccess
) -> Iterator[str]:
    yield RETRY
    first = True
    while access.holds():
        try:
            texts, last, ended = _news_of(app_context, job_id, base, last, first=first)
            first = False
        except DATABASE_AWAY as error:
            log.warning("events.database_unavailable", job=job_id, error=str(error)[:200])
            texts, ended = [": the database is unavailable\n\n"], False
        yield from texts
        if ended:
            return
        said_at = time.monotonic()
        look_at = said_at + POLL_S
        while (left := look_at - time.monotonic()) > 0:
            event = subscription.next(left)
            if event is CLOSE:
                return
            if event is not None and event["kind"] != "job.progress":
                break
            if event is not None:
                progress = {"step": event.get("step", 0), "steps": event.get("steps", 0)}
                yield event_text("progress", progress | ({"previews": event["previews"]} if "previews" in event else {}))
        else:
            yield HEARTBEAT


def _news_of(app_context: AppContext, job_id: str, base: str, last: int, *, first: bool) -> tuple[list[str], int, bool]:
    """Read a job's new events: the texts to send, the id of the last event in them, and whether the job has ended."""
    with app_context.store.read() as session:
        job = session.get(Job, job_id)
        if job is None:
            return [], last, True
        rows = events.events_of(session, job_id, 500, after=last)
        response = job_response(session, app_context, job, base) if rows or first else None
        ended = JobState(job.state).is_final
    texts = [
        event_text(row.kind, {"at": rfc3339(row.at), "kind": row.kind, "subject": row.subject, "data": row.data}, row.id)
        for row in rows
    ]
    last = rows[-1].id if rows else last
    if response is not None:
        texts.append(event_text("job", response.model_dump_json(), last or None))
    return texts, last, ended


def _follow_all(fanout: EventFanout, subscription: Subscription, access: StreamAccess) -> Iterator[str]:
    told = _pace_ms(fanout)
    yield RETRY + event_text("pace", {"ms": told})
    while True:
        event = subscription.next(min(HEARTBEAT_S, access.left_s))
        if event is CLOSE or not access.holds():
            return
        if not 0.8 * told <= (now := _pace_ms(fanout)) <= 1.25 * told:  # the number of open streams changed
            told = now
            yield event_text("pace", {"ms": told})
        yield HEARTBEAT if event is None else text_of(event)


def _pace_ms(fanout: EventFanout) -> int:
    """The shortest interval in milliseconds at which a page should fetch itself. It grows with the number of streams."""
    return max(MIN_PACE_MS, PACE_MS_PER_PAGE * fanout.streams)
