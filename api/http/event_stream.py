"""Live events as they are sent to every open stream: which kinds concern everybody, and the text of each, made once."""

from __future__ import annotations

from api.http.sse import event_text
from api.live.event_fanout import Event

POLL_S = 2.0
"""How often a waiting request or a stream looks into the database itself, should a live event be missed."""
FOR_ALL = frozenset({"away", "back", "bulk.changed", "close"})
"""Kinds that say nothing of one tenant: Redis lost and found, a bulk change, the end."""
TEXT = "\0text"
"""Under this name an event carries its own text, once it was made."""


def text_of(event: Event) -> str:
    """The event as it is sent: written once for all streams, because with five hundred of them the writing is what costs."""
    if TEXT not in event:
        event[TEXT] = _live_text(event)
    return str(event[TEXT])


def _live_text(event: Event) -> str:
    kind = "".join(character for character in event["kind"] if character.isprintable())
    news = {key: value for key, value in event.items() if key not in {"kind", "tenant_id", TEXT}}
    if "previews" in news:
        # a stream of everything says that there is a preview, and where it is, but does not carry it
        news["previews"] = [{key: value for key, value in preview.items() if key != "data"} for preview in news["previews"]]
    return event_text(kind, news)
