"""Cleanup: what nobody needs any more and nobody misses at once. Rare, slow, beside the sweep, never in its way."""

from __future__ import annotations

import threading
import time

from sqlalchemy.exc import SQLAlchemyError

from imagefarm.logs import get_logger
from imagefarm.output_store import OutputStore
from imagefarm.store import Store, idempotency
from imagefarm.users import forget_old_sessions
from scheduler.recovery.orphan_files import collect_orphan_files
from scheduler.recovery.unused_assets import collect_unused_assets

log = get_logger(__name__)

EVERY_S = 900.0
ORPHAN_AGE_S = 300.0
ASSET_RETENTION_S = 30 * 86400.0


class CleanupRunner:
    """Removes orphan files, assets that nobody uses and answers that are too old to be replayed, every quarter of an hour, in a
    thread of its own: walking a large output folder takes longer than a sweep may. Safe beside others of its kind.
    """

    def __init__(self, store: Store, outputs: OutputStore, *, asset_retention_s: float = ASSET_RETENTION_S) -> None:
        self.store = store
        self.outputs = outputs
        self.asset_retention_s = asset_retention_s
        self.failures = 0
        self._next_at = time.monotonic() + EVERY_S
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Clean up now if it is time; returns at once."""
        if time.monotonic() < self._next_at or (self._thread is not None and self._thread.is_alive()):
            return
        self._next_at = time.monotonic() + EVERY_S
        self._thread = threading.Thread(target=self._run, name="cleanup", daemon=True)
        self._thread.start()

    def clean_up(self) -> tuple[int, int]:
        """Return how many files and how many old answers went."""
        files = collect_orphan_files(self.store, self.outputs, ORPHAN_AGE_S)
        files += collect_unused_assets(self.store, self.outputs, self.asset_retention_s, ORPHAN_AGE_S)
        self.store.run_with_retry(forget_old_sessions)
        return files, self.store.run_with_retry(idempotency.forget_old)

    def _run(self) -> None:
        try:
            files, answers = self.clean_up()
        except (SQLAlchemyError, OSError) as error:
            self.failures += 1
            log.warning("cleanup.failed", error=str(error)[:200], failures=self.failures)
        else:
            log.info("cleanup.done", files=files, answers=answers)
