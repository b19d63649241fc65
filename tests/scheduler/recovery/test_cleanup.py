"""Cleanup: orphan files and old answers are removed, and shutdown interrupts it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from sqlalchemy import func, select, update

from imagefarm.output_store import LocalOutputStore, image_key
from imagefarm.store import Store, idempotency
from imagefarm.store.models import Idempotency
from scheduler.recovery.cleanup import ORPHAN_AGE_S, clean_up


def test_orphans_and_old_answers_are_removed(store: Store, tmp_path: Path) -> None:
    outputs = LocalOutputStore(tmp_path / "outputs")
    orphan = image_key("job_01JD0000000000000000000000", 0, 1)
    outputs.write(orphan, b"x")
    os.utime(outputs.path(orphan), (time.time() - 2 * ORPHAN_AGE_S,) * 2)
    with store.write() as session:
        idempotency.take(session, "tenant_default", "old", "0" * 64)
        idempotency.take(session, "tenant_default", "new", "0" * 64)
        session.execute(update(Idempotency).where(Idempotency.key == "old").values(created_at=0.0))
    assert clean_up(store, outputs, is_over=lambda: True) == (0, 1)
    assert outputs.path(orphan).exists()
    assert clean_up(store, outputs) == (1, 0)
    assert not outputs.path(orphan).exists()
    with store.read() as session:
        assert session.scalar(select(func.count()).select_from(Idempotency)) == 1
