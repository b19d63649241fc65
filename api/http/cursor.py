"""Cursors of lists: opaque to callers, bound to the query they came from, refused when tampered with."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable

from imagefarm.errors import FieldError, InvalidRequest

TAG_BYTES = 9


def make_cursor(last_id: str, query: str) -> str:
    """A cursor that goes on after `last_id` in the list that `query` describes (its tenant and filters)."""
    return base64.urlsafe_b64encode(_tag(last_id, query) + last_id.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None, query: str, *, form: Callable[[str], bool]) -> str | None:
    """The id after which the list goes on; None at its beginning. `form` says whether a text looks like an id of the list.

    Raises InvalidRequest for a cursor that was not made here, or for another query. The tag is a checksum and no secret: who
    forges one gets to some place of a list that is theirs anyway.
    """
    if cursor is None:
        return None
    try:
        raw = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))
        last_id = raw[TAG_BYTES:].decode("ascii")
    except (binascii.Error, ValueError):
        raise _refused("is not a cursor of this list") from None
    if not form(last_id) or raw[:TAG_BYTES] != _tag(last_id, query) or make_cursor(last_id, query) != cursor:
        raise _refused("does not belong to this query")
    return last_id


def _tag(last_id: str, query: str) -> bytes:
    return hashlib.sha256(f"cursor\n{query}\n{last_id}".encode()).digest()[:TAG_BYTES]


def _refused(detail: str) -> InvalidRequest:
    remedy = "use next_cursor of the page before, with the same filters; or leave it out to begin anew"
    return InvalidRequest([FieldError(field="cursor", detail=detail, remedy=remedy)])
