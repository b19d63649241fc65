"""Unused assets: no job starts from them, and they were not sent again for a while. Found in SQL, deleted.

A row is deleted in the transaction that deletes its file, so a concurrent upload of the same image waits for it and then stores
it again. A file without a row is left over from a request that died.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from sqlalchemy import ColumnElement, and_, delete, exists, func, select
from sqlalchemy.orm import Session

from imagefarm.logs import get_logger
from imagefarm.output_store import OutputStore
from imagefarm.store import Store, db_now
from imagefarm.store.audit import append
from imagefarm.store.models import Asset, AssetUse
from scheduler.recovery.orphan_files import in_groups

log = get_logger(__name__)
CHUNK_SIZE = 100
"""Assets that one search finds; each is deleted in a transaction of its own."""


def collect_unused_assets(
    store: Store,
    outputs: OutputStore,
    retention_s: float,
    orphan_age_s: float,
    *,
    is_over: Callable[[], bool] = lambda: False,
) -> int:
    """Delete assets that were unused for `retention_s`, and files without an asset; return how many files were deleted.

    Raises OSError if the file store is away. Safe at any time and beside other runs.
    """
    removed = 0
    while not is_over() and (found := _unused(store, retention_s)):
        gone = sum(
            store.run_with_retry(partial(_remove, outputs=outputs, asset_id=asset_id, retention_s=retention_s))
            for asset_id in found
        )
        removed += gone
        if not gone:
            break
    newest = time.time() - orphan_age_s
    old = (stored.key for stored in outputs.walk("assets") if stored.modified_at < newest)
    for keys in in_groups(old):
        if is_over():
            break
        with store.read() as session:
            named = set(session.scalars(select(Asset.storage_key).where(Asset.storage_key.in_(keys))))
        for key in sorted(set(keys) - named):
            removed += outputs.delete(key)
            log.info("asset.orphan_removed", key=key)
    return removed


def _is_unused(retention_s: float) -> ColumnElement[bool]:
    named = exists().where(AssetUse.asset_id == Asset.id)
    return and_(func.coalesce(Asset.used_at, Asset.created_at) < db_now() - retention_s, ~named)


def _unused(store: Store, retention_s: float) -> list[str]:
    with store.read() as session:
        return list(session.scalars(select(Asset.id).where(_is_unused(retention_s)).limit(CHUNK_SIZE)))


def _remove(session: Session, *, outputs: OutputStore, asset_id: str, retention_s: float) -> bool:
    statement = delete(Asset).where(Asset.id == asset_id, _is_unused(retention_s)).returning(Asset.tenant_id, Asset.storage_key)
    gone = session.execute(statement).first()
    if gone is None:
        return False
    append(session, "asset.collected", asset_id, gone.tenant_id, {})
    session.flush()
    outputs.delete(gone.storage_key)
    return True
