"""Names of assets. A name points to an asset of a tenant; each upload under the name points it to the new asset."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from imagefarm.ids import is_id
from imagefarm.store.dialects import per_dialect
from imagefarm.store.models import Asset, AssetName
from scheduler.assets.image_zip import plain_path

POINT = per_dialect(
    lambda insert_into: (statement := insert_into(AssetName)).on_conflict_do_update(
        index_elements=[AssetName.tenant_id, AssetName.name], set_={"asset_id": statement.excluded.asset_id}
    )
)


def set_names(session: Session, tenant_id: str, names: Mapping[str, str]) -> None:
    """Point each name to the asset of this id, in the caller's transaction. Names are compared like paths in a ZIP."""
    statement = POINT[session.get_bind().dialect.name]
    pointers = {plain_path(name): asset_id for name, asset_id in names.items()}
    for name in sorted(pointers):  # in order, so that two uploads that share names do not deadlock
        if name:
            session.execute(statement.values(tenant_id=tenant_id, name=name, asset_id=pointers[name]))


def find_asset(session: Session, tenant_id: str, name: str) -> str | None:
    """The id of a tenant's asset, by its id or by the name of its latest upload; None if there is none."""
    if is_id(name, "asset"):
        return session.scalar(select(Asset.id).where(Asset.id == name, Asset.tenant_id == tenant_id))
    where = (AssetName.tenant_id == tenant_id, AssetName.name == plain_path(name))
    return session.scalar(select(AssetName.asset_id).where(*where))


def names_of(session: Session, asset_ids: Collection[str]) -> dict[str, list[str]]:
    """By asset id: the names that point to the asset now, in order."""
    found: dict[str, list[str]] = {asset_id: [] for asset_id in asset_ids}
    rows = session.execute(
        select(AssetName.asset_id, AssetName.name).where(AssetName.asset_id.in_(list(found))).order_by(AssetName.name)
    )
    for asset_id, name in rows:
        found[asset_id].append(name)
    return found
