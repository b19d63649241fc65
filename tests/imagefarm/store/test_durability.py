"""Commits that wait for the disk, and checkpoints of SQLite's WAL."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from imagefarm.store import Store
from imagefarm.store.audit import append
from imagefarm.store.migrate import migrate

FULL, NORMAL = 2, 1


def test_only_what_says_so_commits_without_waiting_for_the_disk(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/farm.db", pool_size=2)
    levels = []
    for durable in (True, False, False, True):
        with store.write(durable=durable) as session:
            levels.append(session.scalar(text("PRAGMA synchronous")))
    assert levels == [FULL, NORMAL, NORMAL, FULL]
    store.close()


def test_a_checkpoint_lets_the_log_begin_anew(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/farm.db", pool_size=2)
    migrate(store)

    def grow() -> int:
        for _ in range(20):
            with store.write() as session:
                append(session, "x", "y", None, {"text": "z" * 5000})
        return (tmp_path / "farm.db-wal").stat().st_size

    before = grow()
    store.checkpoint()
    after = grow()
    assert after == before  # the second round is written over the first
    store.close()
