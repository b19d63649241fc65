"""Page push: each open page is rendered once for all its viewers and sent to them.

One thread per process receives every event, renders the pages that it may affect and hands the result to the streams. Five
hundred
viewers of one page cost one rendering, a write each and no request. Viewers share a page if address and language are equal and
they would see the same: `api.pages.live.render_cache` marks pages that depend only on the caller's tenant and scopes. Of other
pages each viewer gets its own.

A stream keeps only the newest page, so a slow connection skips some and nothing piles up. Rendering takes at most a third of a
core and pauses while requests are answered. With many different open pages each is renewed less often, and the API stays fast.
"""

from __future__ import annotations

import io
import re
import sys
import threading
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from flask import Flask, g, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect
from werkzeug.urls import iri_to_uri

from api.http.auth import SESSION_COOKIE, authenticate
from api.http.context import app_context_of
from api.http.event_stream import FOR_ALL, text_of
from api.http.gunicorn_adapter import client_socket
from api.http.request_log import FOR_STREAMS
from api.http.request_priority import YieldBudget, in_flight_requests, yielding_to_requests
from api.http.sse import RETRY, event_text
from api.http.stream_access import KEPT
from api.live.event_fanout import CLOSE, Event, Subscription
from api.pages.i18n import language
from api.pages.live.page_connection import PageConnection, http_chunk
from api.pages.live.render_cache import is_cached_per_tenant
from imagefarm.auth import Caller
from imagefarm.errors import FarmError, FieldError, InvalidRequest
from imagefarm.logs import get_logger
from imagefarm.store import DATABASE_AWAY

log = get_logger(__name__)

PACE_S, SLOWER_PER_CONNECTION_S, SLOWEST_S = 0.2, 0.0004, 0.4
"""Shortest interval between two sends of a page, in seconds; with five hundred connections it grows to 0.4 s."""
SETTLE_S = 0.03
"""Seconds to wait after an event, because one change arrives as several events."""
STALE_S, OLD_S = 5.0, 20.0
"""Seconds until a page is rendered again after an event that hardly affects it, and after no event at all."""
AGAIN_S = 2.0
"""Seconds until a page is tried again after the farm could not render it."""
SLICE, SLICE_S = 16, 0.002
"""Streams that receive a page at once. Sending to all five hundred at once would block other requests."""
REST = 2.0
"""The thread rests for this multiple of a rendering's CPU time: while requests are answered, and after the rendering."""
BEAT, BEAT_S = event_text("beat", {}).encode(), 2.0
"""Interval of the stream's heartbeat in seconds. A page without one for 5 s does not show itself as live."""
CHECK_S = 15.0
"""Seconds within which a stream ends after its viewer signed out or its key was revoked."""
MAX_ADDRESS_CHARS = 4000
ONE_JOB = re.compile(r"/jobs/(job_\w+)")
NEVER = float("inf")


@dataclass(eq=False, slots=True)
class LivePage:
    """An open page, and when it is to be rendered again."""

    key: Hashable
    environ: dict[str, Any]
    caller: Caller
    job: str | None
    connections: set[PageConnection] = field(default_factory=set)
    tag: str = ""
    html: str = ""
    text: bytes = b""
    rendered_at: float = 0.0
    due_at: float = 0.0
    cost_s: float = 0.01
    """CPU time of its last rendering."""
    steps: dict[str, str] = field(default_factory=dict)
    """Progress that was not sent yet, by job."""
    steps_at: float = NEVER
    stepped_at: float = 0.0

    @property
    def next_at(self) -> float:
        return min(self.due_at, self.steps_at)


class PagePublisher(Subscription):
    """All open pages of this process, and the thread that renews them. It subscribes to every event."""

    def __init__(self, app: Flask) -> None:
        super().__init__(lambda _: True)
        self.app = app
        self.app_context = app_context_of(app)
        self._in_flight = in_flight_requests(app)
        self.renderings = 0
        self._pages: dict[Hashable, LivePage] = {}
        self._connections = 0
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()

    @property
    def pace_s(self) -> float:
        """The shortest interval between two sends of a page; it grows with the number of connections."""
        return min(SLOWEST_S, PACE_S + SLOWER_PER_CONNECTION_S * self._connections)

    def connect(self, at: str) -> tuple[PageConnection, Iterator[bytes]]:
        """Open a stream of the page at this address for the current request's caller. Raises InvalidRequest, Unavailable."""
        environ = asking(request.environ, at) if at else None
        key, caller = self._seen_by(environ)
        connection = PageConnection(client_socket(request.environ))
        self.app_context.events.add(connection)
        with self._changed:
            if self._thread is None:
                self.app_context.events.listen(self)
                self._thread = threading.Thread(target=self._run, name="page-publisher", daemon=True)
                self._thread.start()
            self._connections += 1
            if environ is not None:
                found = ONE_JOB.match(environ["PATH_INFO"])
                page = self._pages.setdefault(key, LivePage(key, environ, caller, found and found[1]))
                page.connections.add(connection)
                page.due_at = min(page.due_at, page.rendered_at + self.pace_s)
                self._changed.notify()
        return connection, self._texts(connection, environ, key)

    def disconnect(self, connection: PageConnection) -> None:
        """Remove a connection, and its page if that was the last viewer."""
        self.app_context.events.unsubscribe(connection)
        with self._changed:
            self._connections -= 1
            for page in [page for page in self._pages.values() if connection in page.connections]:
                page.connections.discard(connection)
                if not page.connections:
                    del self._pages[page.key]

    def offer(self, event: Event) -> None:
        """Note which pages an event affects."""
        now = time.monotonic()
        kind, subject = event["kind"], str(event.get("subject", ""))
        with self._changed:
            if event is CLOSE:
                self.closed = True
            for page in self._pages.values():
                if kind == "job.progress":
                    if subject in page.html and page.caller.can_see(event.get("tenant_id")):
                        page.steps[subject] = text_of(event)
                        page.steps_at = max(now, page.stepped_at + self.pace_s)
                elif kind in FOR_ALL or (
                    page.caller.can_see(event.get("tenant_id"))
                    and (page.job is None or page.job == subject or subject in page.html)
                ):
                    page.due_at = min(page.due_at, max(now + SETTLE_S, page.rendered_at + self.pace_s))
                else:
                    page.due_at = min(page.due_at, page.rendered_at + STALE_S)
            self._changed.notify()

    def _seen_by(self, environ: dict[str, Any] | None) -> tuple[Hashable, Caller]:
        """The key under which the current request's caller shares a page, and the caller. Raises the errors of authentication."""
        caller = authenticate(self.app_context)
        if environ is None:
            return (caller.tenant_id, caller.scopes), caller
        try:
            endpoint, _ = self.app.create_url_adapter(request).match(environ["PATH_INFO"], method="GET")  # type: ignore[union-attr]
        except (HTTPException, RequestRedirect):
            endpoint = ""
        if not endpoint.startswith("pages_"):
            raise InvalidRequest([FieldError(field="at", detail="is not a page of this farm", remedy="give its path, as /jobs")])
        own = None
        if not is_cached_per_tenant(self.app.view_functions[endpoint]):
            own = (request.headers.get("Cookie"), request.headers.get("Authorization"))
        signed_in = SESSION_COOKIE in request.cookies
        at = (request.host_url, environ["PATH_INFO"], environ["QUERY_STRING"])
        return (caller.tenant_id, caller.scopes, signed_in, language(), at, own), caller

    def _texts(self, connection: PageConnection, environ: dict[str, Any] | None, key: Hashable) -> Iterator[bytes]:
        yield RETRY.encode() + BEAT
        checked_at = time.monotonic()
        while not connection.closed:
            yield connection.take(BEAT_S) or BEAT
            if environ is not None and time.monotonic() - checked_at > CHECK_S:
                checked_at = time.monotonic()
                if not self._still(environ, key):
                    return

    def _still(self, environ: dict[str, Any], key: Hashable) -> bool:
        """Whether the caller may still see the page; while the database is away, yes."""
        with self.app.request_context(environ | {"wsgi.input": io.BytesIO()}):
            g.request_window = None  # not one of the caller's own requests
            try:
                return self._seen_by(environ)[0] == key
            except FarmError:
                return False
            except DATABASE_AWAY:
                return True

    def _run(self) -> None:
        while not self.closed:
            try:
                self._renew_one()
            except Exception as error:  # noqa: BLE001 - without this thread every page would hang
                log.error("pages.not_renewed", error=repr(error)[:500])
                time.sleep(AGAIN_S)

    def _renew_one(self) -> None:
        """Wait for the page that is due next and send it, or its progress."""
        with self._changed:
            page = min(self._pages.values(), key=lambda page: page.next_at, default=None)
            wait = NEVER if page is None else page.next_at - time.monotonic()
            if page is None or wait > 0:
                self._changed.wait(min(wait, OLD_S))
                return
            if page.due_at > time.monotonic():
                text = "".join(page.steps.values()).encode()
                page.steps, page.steps_at, page.stepped_at = {}, NEVER, time.monotonic()
            else:
                text = b""
                page.rendered_at = time.monotonic()
                page.due_at = page.rendered_at + OLD_S
        budget = YieldBudget(self._in_flight, REST * page.cost_s)
        if text:
            self._hand_out(page, "steps", text, budget)
            return
        began = time.thread_time()
        with yielding_to_requests(budget):
            budget.yield_now()
            text = self._rendered(page)
        page.cost_s = time.thread_time() - began
        rested = time.monotonic() + REST * page.cost_s - budget.used_s
        if text:
            self._hand_out(page, "page", text, budget)
        time.sleep(max(0.0, rested - time.monotonic()))

    def _rendered(self, page: LivePage) -> bytes:
        """The page as it is now; only a note that it changed, where this thread cannot render it for its viewers."""
        self.renderings += 1
        with self.app.request_context(page.environ | {"wsgi.input": io.BytesIO(), "HTTP_IF_NONE_MATCH": page.tag}):
            g.request_window = None
            response = self.app.full_dispatch_request()
            status, tag = response.status_code, response.headers.get("ETag", "")
            html = response.get_data(as_text=True) if status == HTTPStatus.OK else ""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            page.due_at = min(page.due_at, time.monotonic() + AGAIN_S)
            return b""
        if status == HTTPStatus.OK:
            page.html = live_part(html)
            page.tag, page.text = tag, _page_text(page.html)
        elif status != HTTPStatus.NOT_MODIFIED:
            page.tag, page.text = f"{status} {time.monotonic()}", event_text("changed", {}).encode()
        return page.text

    def _hand_out(self, page: LivePage, name: str, text: bytes, budget: YieldBudget) -> None:
        with self._changed:
            connections = [connection for connection in page.connections if name != "page" or connection.tag != page.tag]
        chunk = http_chunk(text)
        for start in range(0, len(connections), SLICE):
            if start:
                time.sleep(SLICE_S)
            for connection in budget.between(connections[start : start + SLICE]):
                if name == "page":
                    connection.tag = page.tag
                connection.put(name, text, chunk)


def asking(environ: dict[str, Any], at: str) -> dict[str, Any]:
    """A request for the page at this address with the host, language and credentials of another request."""
    address = urlsplit(iri_to_uri(at)) if len(at) <= MAX_ADDRESS_CHARS and at.startswith("/") else urlsplit("//")
    return {name: environ[name] for name in KEPT if name in environ} | {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "" if address.netloc else unquote_to_bytes(address.path).decode("latin-1"),
        "QUERY_STRING": address.query,
        "HTTP_ACCEPT": "text/html",
        FOR_STREAMS: True,
        "wsgi.version": (1, 0),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


def live_part(html: str) -> str:
    """The title of a page and its live part. Surplus closing tags at its end are ignored by HTML."""
    start, end = html.find('<div id="live"'), html.rfind("</main>")
    title = re.search(r"<title>.*?</title>", html, re.DOTALL)
    return f"{title[0] if title else ''}\n{html[start:end]}" if 0 <= start < end else ""


def _page_text(html: str) -> bytes:
    lines = re.split(r"\r\n|\r|\n", html)
    return ("event: page\n" + "".join(f"data: {line}\n" for line in lines) + "\n").encode() if html else b""
