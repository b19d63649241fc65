"""Orphan files: images of attempts that lost their job before they could commit. Found on disk, verified in SQL, deleted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from sqlalchemy import select

from imagefarm.logs import get_logger
from imagefarm.output_store import JOB_KEY, OutputStore
from imagefarm.states import JobState
from imagefarm.store import Store
from imagefarm.store.models import ChannelFile, Image, Job

log = get_logger(__name__)
CHUNK_SIZE = 500
"""Keys in one statement."""


def collect_orphan_files(
    store: Store, outputs: OutputStore, older_than_s: float, *, is_over: Callable[[], bool] = lambda: False
) -> int:
    """Delete files older than `older_than_s` that no image row names and no running attempt can still commit, and files that dead
    writers left unfinished. Returns how many were deleted. Raises OSError if the store is away. Stops before the next group of
    files
    once `is_over()`.

    Safe at any time and beside workers: only the attempt that holds its job's lease can commit, an attempt without the lease
    never
    can again, and no two attempts write the same key. The age only spares a query for the newest files. Files whose keys are not
    image keys are left alone.
    """
    removed = outputs.collect_temporary(older_than_s)
    newest = time.time() - older_than_s
    old = (stored.key for stored in outputs.walk("jobs") if stored.modified_at < newest)
    for keys in in_groups(old):
        if is_over():
            break
        for key in sorted(set(keys) - _needed(store, keys)):
            removed += outputs.delete(key)
            log.info("orphan.removed", key=key)
    return removed


def _needed(store: Store, keys: list[str]) -> set[str]:
    """The keys that must stay: named by an image row, or of a running attempt, or not an image key."""
    parsed = {key: JOB_KEY.match(key) for key in keys}
    needed = {key for key, match in parsed.items() if match is None}
    jobs = {match["job"] for match in parsed.values() if match is not None}
    with store.read() as session:
        # running attempts first, then committed images: in the other order a commit in between would be missed
        running = dict(session.execute(select(Job.id, Job.attempt).where(Job.id.in_(jobs), Job.state == JobState.RUNNING)).all())
    with store.read() as session:
        needed.update(session.scalars(select(Image.storage_key).where(Image.storage_key.in_(keys))))
        needed.update(session.scalars(select(ChannelFile.storage_key).where(ChannelFile.storage_key.in_(keys))))
    needed.update(
        key for key, match in parsed.items() if match is not None and running.get(match["job"]) == int(match["attempt"])
    )
    return needed


def in_groups(keys: Iterable[str]) -> Iterator[list[str]]:
    """Groups of as many keys as fit one statement."""
    remaining = iter(keys)
    while group := list(islice(remaining, CHUNK_SIZE)):
        yield group
