"""Server-sent events: their text format, and the response that carries them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from flask import Response, request

from imagefarm.errors import FieldError, InvalidRequest

MEDIA = "text/event-stream"
HEARTBEAT_S = 15.0
"""Seconds of silence after which a stream sends a comment. Proxies then keep it open, and a closed reader is detected."""
HEARTBEAT = ": heartbeat\n\n"
RETRY = "retry: 2000\n\n"
"""Milliseconds after which a browser reconnects to a broken stream."""


def event_text(kind: str, data: dict[str, Any] | str, event_id: int | None = None) -> str:
    """Format one event. `data` is JSON text or a value that is serialised to JSON, which has no line breaks of its own."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    number = "" if event_id is None else f"id: {event_id}\n"
    return f"{number}event: {kind}\ndata: {text}\n\n"


def last_event_id() -> int:
    """The id after which the reader wants to continue; 0 means from the beginning. Raises InvalidRequest."""
    given = request.headers.get("Last-Event-ID", "").strip()
    if not given:
        return 0
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise InvalidRequest([FieldError(field="Last-Event-ID", detail="is not an id of this stream", remedy="leave it out")])
    return int(given)


def stream(events: Iterator[str] | Iterator[bytes], on_close: Callable[[], None]) -> Response:
    """Return the streaming response. `on_close` runs at its end in every case, even if no event was sent."""
    response = Response(events, content_type=f"{MEDIA}; charset=utf-8", headers={"X-Accel-Buffering": "no"})
    response.call_on_close(on_close)
    return response
