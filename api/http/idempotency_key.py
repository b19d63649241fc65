"""The Idempotency-Key header: a repeated request receives the stored response of the first."""

from __future__ import annotations

import hashlib
import re

from flask import Response, request

from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.store.idempotency import NO_KEY, IdempotencyKey, Stored

KEY = re.compile(r"[!-~]([ -~]{0,253}[!-~])?")


def read_key(body_sha256: str | None = None) -> IdempotencyKey:
    """Return the current request's key, or NO_KEY without the header.

    `body_sha256` is the digest of a body that was streamed; without it the body is read and digested here. Raises InvalidRequest.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return NO_KEY
    if not KEY.fullmatch(key):
        detail = "must be 1 to 255 printable ASCII characters"
        raise InvalidRequest([FieldError(field="Idempotency-Key", detail=detail, remedy="use a UUID")])
    asked = f"{request.method} {request.full_path}\n{body_sha256 or ''}".encode()
    body = b"" if body_sha256 is not None else request.get_data(cache=True)
    return IdempotencyKey(key, hashlib.sha256(asked + body).hexdigest())


def replay(stored: Stored) -> Response:
    """The stored response, with the header `Idempotency-Replayed: true`."""
    return Response(stored.response, stored.status, content_type="application/json", headers={"Idempotency-Replayed": "true"})
