"""The Idempotency-Key of a request: the first one works, the same one again is answered from store."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from flask import Response, request
from sqlalchemy.orm import Session

from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.store import Store, idempotency
from imagefarm.store.idempotency import Stored
from scheduler.queue.submit import StoredResponse

KEY = re.compile(r"[!-~]([ -~]{0,253}[!-~])?")


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The key of the current request and the digest of what it asks. Without a key everything here does nothing."""

    key: str | None
    body_sha256: str = ""

    def take(self, session: Session, tenant_id: str) -> Stored | None:
        """Take the key in this transaction; the stored answer, if there is one, is to be replayed. See `idempotency.take`."""
        return None if self.key is None else idempotency.take(session, tenant_id, self.key, self.body_sha256)

    def answered(self, store: Store, tenant_id: str) -> Stored | None:
        """The answer to replay, if there is one: what must be done before the key can be taken need not be done again."""
        if self.key is None:
            return None
        with store.read() as session:
            return idempotency.answered(session, tenant_id, self.key, self.body_sha256)

    def keep(self, session: Session, tenant_id: str, status: int, response: str) -> None:
        """Keep the answer in this transaction."""
        if self.key is not None:
            idempotency.keep(session, tenant_id, self.key, status, response)

    def with_work(self, status: int, response: str) -> StoredResponse | None:
        """The answer as `submit.write` keeps it, together with its work."""
        return None if self.key is None else StoredResponse(self.key, self.body_sha256, status, response)

    def give_back(self, session: Session, tenant_id: str) -> None:
        """Free the key of a request that failed after `take` was committed."""
        if self.key is not None:
            idempotency.give_back(session, tenant_id, self.key)


def read_key(body_sha256: str | None = None) -> IdempotencyKey:
    """The current request's key. `body_sha256` is for bodies that are streamed; else the body is read and digested here."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return IdempotencyKey(None)
    if not KEY.fullmatch(key):
        detail = "must be 1 to 255 printable ASCII characters"
        raise InvalidRequest([FieldError(field="Idempotency-Key", detail=detail, remedy="use a UUID")])
    asked = f"{request.method} {request.full_path}\n{body_sha256 or ''}".encode()
    body = b"" if body_sha256 is not None else request.get_data(cache=True)
    return IdempotencyKey(key, hashlib.sha256(asked + body).hexdigest())


def replay(stored: Stored) -> Response:
    """The stored answer, marked as one."""
    return Response(stored.response, stored.status, content_type="application/json", headers={"Idempotency-Replayed": "true"})
