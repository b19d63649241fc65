"""Cursors of paged lists: opaque to callers, bound to one query, with a checksum."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable

from imagefarm.errors import FieldError, InvalidRequest

TAG_BYTES = 9


def make_cursor(last_id: str, query: str) -> str:
    """A cursor to the rows after `last_id`. `query` names the list, its tenant and its filters."""
    return base64.urlsafe_b64encode(_tag(last_id, query) + last_id.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None, query: str, *, form: Callable[[str], bool]) -> str | None:
    """Return the id after which the page begins; None for the first page. `form` tests whether a text is an id of this list.

    Raises InvalidRequest for a malformed cursor and for a cursor of another query. The tag is a checksum, not a secret: a forged
    cursor only reaches another page of the caller's own list.
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
    remedy = "use next_cursor of the previous page with the same filters, or leave it out to start again"
    return InvalidRequest([FieldError(field="cursor", detail=detail, remedy=remedy)])
