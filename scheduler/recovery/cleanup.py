"""Cleanup: removes what is no longer needed. It runs rarely and beside the sweep."""

from __future__ import annotations

from collections.abc import Callable

from imagefarm.output_store import OutputStore
from imagefarm.store import Store, idempotency
from imagefarm.users import forget_old_sessions
from scheduler.recovery.orphan_files import collect_orphan_files
from scheduler.recovery.unused_assets import collect_unused_assets

ORPHAN_AGE_S = 300.0
ASSET_RETENTION_S = 30 * 86400.0


def clean_up(
    store: Store,
    outputs: OutputStore,
    *,
    asset_retention_s: float = ASSET_RETENTION_S,
    is_over: Callable[[], bool] = lambda: False,
) -> tuple[int, int]:
    """Remove orphan files, unused assets, old sessions and stored responses that are too old to be replayed.

    Returns how many files and how many responses were removed. Safe beside other runs. It walks the whole output folder, which
    may
    take long, and stops before the next group of files once `is_over()`.
    """
    files = collect_orphan_files(store, outputs, ORPHAN_AGE_S, is_over=is_over)
    files += collect_unused_assets(store, outputs, asset_retention_s, ORPHAN_AGE_S, is_over=is_over)
    store.run_with_retry(forget_old_sessions)
    return files, store.run_with_retry(idempotency.forget_old)
