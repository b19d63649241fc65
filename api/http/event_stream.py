"""Live events as text: the kinds that every stream receives, and one serialised text per event for all streams."""

from __future__ import annotations

from api.http.sse import event_text
from api.live.event_fanout import Event

POLL_S = 2.0
"""Seconds between two database reads of a waiting request or stream. They find changes whose live event was lost."""
FOR_ALL = frozenset({"away", "back", "bulk.changed", "close"})
"""Kinds that belong to no tenant: Redis lost, Redis back, a bulk change, the end of the stream."""
TEXT = "\0text"
"""The key under which an event keeps its serialised text."""


def text_of(event: Event) -> str:
    """Return the event as SSE text. It is serialised once for all streams, because there may be hundreds of them."""
    if TEXT not in event:
        event[TEXT] = _live_text(event)
    return str(event[TEXT])


def _live_text(event: Event) -> str:
    kind = "".join(character for character in event["kind"] if character.isprintable())
    news = {key: value for key, value in event.items() if key not in {"kind", "tenant_id", TEXT}}
    if "previews" in news:
        # the stream of all events carries a preview's address, not its data
        news["previews"] = [{key: value for key, value in preview.items() if key != "data"} for preview in news["previews"]]
    return event_text(kind, news)
