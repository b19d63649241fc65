"""Uploads a batch's files to a bucket when the batch is done: masters and channels under their names, then the manifest.

A file that the bucket has with the same SHA-256 is not sent again. An interrupted delivery therefore continues where it stopped,
and a repeated delivery sends only what changed. Rejected and re-rolled images are left out.

| state | |
|---|---|
| open | the batch is not done yet |
| waiting | the delivery is due, at once or after a pause |
| delivered | every file is there; the delivery is due again when the batch gets further images |
| failed | given up after about a day; `POST /api/v1/batches/ID/deliver` starts it again |
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, func, literal_column, select, update
from sqlalchemy.orm import Session

from imagefarm.imaging.formats import MEDIA
from imagefarm.logs import get_logger
from imagefarm.output_store import OutputStore
from imagefarm.settings import Settings
from imagefarm.store import Store, db_now
from imagefarm.store.audit import append
from imagefarm.store.models import BatchDelivery
from scheduler.batches.export.manifest import Entry, entries, manifest_csv
from scheduler.batches.review.picks import Picked
from scheduler.delivery.buckets import Bucket, UploadError, open_bucket

log = get_logger(__name__)

BACKOFF_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 21600.0, 43200.0)
"""Pause after each failed try, in seconds. After the last pause and one more failure the delivery is given up."""
LEASE_S = 180.0
"""A delivery that was taken and reports no progress for this time, in seconds, is due again: the task that uploaded it died."""
TURN_S = 300.0
"""After this time, in seconds, a batch that still sends files is put behind the other batches that are due."""
TELL_S = 10.0
MANIFEST = "manifest.csv"
LEFT_OUT = {Picked.REJECTED, Picked.REROLLED}


class _TurnOver(Exception):
    """Ends a turn. A later turn uploads the rest of the batch's files."""


def count_due(session: Session, limit: int) -> int:
    """The number of batches that are due for upload, at most `limit`."""
    due = select(BatchDelivery.batch_id).where(*_due()).limit(limit).subquery()
    return session.scalar(select(func.count()).select_from(due)) or 0


def upload_due(store: Store, settings: Settings, outputs: OutputStore, *, is_over: Callable[[], bool] = lambda: False) -> bool:
    """Upload one batch that is due; return False if none is due. Two uploaders never take the same batch.

    The upload stops before the next file when `is_over()` returns True, or `TURN_S` after the first file that had to be sent. The
    batch is then due again.
    """
    with store.read() as session:
        if count_due(session, 1) == 0:
            return False

    def take(session: Session) -> BatchDelivery | None:
        batch_id = session.scalar(
            select(BatchDelivery.batch_id)
            .where(*_due())
            .order_by(BatchDelivery.next_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        if batch_id is None:
            return None
        session.execute(update(BatchDelivery).where(BatchDelivery.batch_id == batch_id).values(next_at=db_now() + LEASE_S))
        return session.get_one(BatchDelivery, batch_id, populate_existing=True)

    taken = store.run_with_retry(take)
    if taken is not None:
        _Upload(store, outputs, taken, is_over).run(settings)
    return taken is not None


def _due() -> tuple[ColumnElement[bool], ...]:
    # a literal, so that PostgreSQL uses the partial index
    return BatchDelivery.state == literal_column("'waiting'"), BatchDelivery.next_at <= db_now()


class _Upload:
    """One try to upload one batch."""

    def __init__(self, store: Store, outputs: OutputStore, delivery: BatchDelivery, is_over: Callable[[], bool]) -> None:
        self.store, self.outputs, self.delivery, self.is_over = store, outputs, delivery, is_over
        self.files = self.sent = self.bytes = 0
        self.lost: set[str] = set()
        self._told_at = time.monotonic()
        self._turn_ends_at = float("inf")  # set when the first file is sent, so each turn sends at least one

    def run(self, settings: Settings) -> None:
        delivery = self.delivery
        try:
            bucket = open_bucket(settings, delivery.bucket)
            for entry in self._included():
                self._send_picture(bucket, entry)
            listed = "".join(manifest_csv(self._listed())).encode()
            self._send(bucket, MANIFEST, listed, hashlib.sha256(listed).hexdigest(), "text/csv; charset=utf-8")
        except _TurnOver:
            self._end("waiting", error=None, tries=delivery.tries, pause=0.0)
        except (UploadError, OSError) as error:
            detail = error.detail if isinstance(error, UploadError) else f"a picture cannot be read: {error.strerror or error}"
            tries = delivery.tries + 1
            final = tries > len(BACKOFF_S)
            log.warning(
                "batch_delivery.failed", batch=delivery.batch_id, bucket=delivery.bucket, tries=tries, error=detail, final=final
            )
            pause = 0.0 if final else BACKOFF_S[tries - 1]
            self._end("failed" if final else "waiting", error=detail, tries=tries, pause=pause)
        else:
            log.info("batch_delivery.finished", batch=delivery.batch_id, bucket=delivery.bucket, files=self.files, sent=self.sent)
            error_text = f"{len(self.lost)} files are gone from the farm's store" if self.lost else None
            self._end("delivered", error=error_text, tries=delivery.tries + 1, pause=0.0)

    def _included(self) -> Iterator[Entry]:
        return (e for e in entries(self.store, self.delivery.batch_id) if e.storage_key and e.pick not in LEFT_OUT)

    def _listed(self) -> Iterator[Entry]:
        for entry in self._included():
            lost = entry.storage_key in self.lost
            yield replace(entry, file="", reason="its file is gone from the store") if lost else entry

    def _send_picture(self, bucket: Bucket, entry: Entry) -> None:
        try:
            data = self.outputs.read(entry.storage_key)
        except FileNotFoundError:
            self.lost.add(entry.storage_key)
            return
        ending = entry.file.rsplit(".", 1)[-1]
        self._send(bucket, entry.file, data, entry.sha256, MEDIA.get(ending, "application/octet-stream"))

    def _send(self, bucket: Bucket, name: str, data: bytes, sha256: str, media: str) -> None:
        if self.is_over() or time.monotonic() > self._turn_ends_at:
            raise _TurnOver
        key = f"{self.delivery.prefix}/{name}"
        if not bucket.has(key, sha256):
            bucket.put(key, data, sha256, media)
            self._turn_ends_at = min(self._turn_ends_at, time.monotonic() + TURN_S)
            self.sent += 1
            self.bytes += len(data)
        self.files += 1
        if time.monotonic() - self._told_at > TELL_S:
            self._told_at = time.monotonic()
            with self.store.write() as session:
                session.execute(
                    self._mine().values(files=self.files, sent=self.sent, bytes=self.bytes, next_at=db_now() + LEASE_S)
                )

    def _mine(self) -> Any:
        """An update that applies only while this try holds the delivery: same target, no further images, lease not expired."""
        delivery = self.delivery
        where = (
            BatchDelivery.batch_id == delivery.batch_id,
            BatchDelivery.state == "waiting",
            BatchDelivery.bucket == delivery.bucket,
            BatchDelivery.prefix == delivery.prefix,
        )
        return update(BatchDelivery).where(*where, BatchDelivery.tries == delivery.tries, BatchDelivery.next_at > db_now())

    def _end(self, state: str, *, error: str | None, tries: int, pause: float) -> None:
        def end(session: Session) -> None:
            values = {"state": state, "error": error, "tries": tries, "files": self.files, "sent": self.sent, "bytes": self.bytes}
            finished = db_now() if state != "waiting" else None
            ended = session.execute(
                self._mine().values(**values, next_at=db_now() + pause, finished_at=finished).returning(BatchDelivery.batch_id)
            )
            if ended.first() is not None and state != "waiting":
                data = {"bucket": self.delivery.bucket, "prefix": self.delivery.prefix, "files": self.files, "sent": self.sent}
                event = "batch.delivered" if state == "delivered" else "batch.undelivered"
                append(
                    session, event, self.delivery.batch_id, self.delivery.tenant_id, data | ({"error": error} if error else {})
                )

        self.store.run_with_retry(end)
