"""Cleanup: orphans and old answers go when it is time, and the sweep does not wait for it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from imagefarm.output_store import LocalOutputStore, image_key
from imagefarm.store import Store, idempotency
from imagefarm.store.models import Idempotency
from scheduler.recovery import cleanup
from scheduler.recovery.cleanup import ORPHAN_AGE_S, CleanupRunner
from tests.waiting import until


def test_orphans_and_old_answers_go_when_it_is_time(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = LocalOutputStore(tmp_path / "outputs")
    orphan = image_key("job_01JD0000000000000000000000", 0, 1)
    outputs.write(orphan, b"x")
    os.utime(outputs.path(orphan), (time.time() - 2 * ORPHAN_AGE_S,) * 2)
    with store.write() as session:
        idempotency.take(session, "tenant_default", "old", "0" * 64)
        idempotency.take(session, "tenant_default", "new", "0" * 64)
        session.execute(update(Idempotency).where(Idempotency.key == "old").values(created_at=0.0))
    cleanup_runner = CleanupRunner(store, outputs)
    cleanup_runner.wake()
    assert outputs.path(orphan).exists()  # it has just begun: not time yet
    monkeypatch.setattr(cleanup, "EVERY_S", 0.0)
    cleanup_runner = CleanupRunner(store, outputs)
    cleanup_runner.wake()
    until(lambda: not outputs.path(orphan).exists(), "the orphan is gone")

    def answers() -> int:
        with store.read() as session:
            return session.scalar(select(func.count()).select_from(Idempotency)) or 0

    until(lambda: answers() == 1, "the old answer is gone")
    assert cleanup_runner.failures == 0
