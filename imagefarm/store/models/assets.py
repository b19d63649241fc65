"""Tables of uploaded images: their names, and the jobs that use them."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from imagefarm.store.models.base import HASH, ID, Base


class Asset(Base):
    """An uploaded image, stored once per SHA-256 of its bytes."""

    __tablename__ = "asset"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID)
    sha256: Mapped[str] = mapped_column(HASH)
    storage_key: Mapped[str] = mapped_column(String(512))
    name: Mapped[str]
    """The name at the first upload. `AssetName` has the current meaning of each name."""
    format: Mapped[str] = mapped_column(String(8))
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    bytes: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[float]
    used_at: Mapped[float | None]
    """When the same bytes were last uploaded again."""

    __table_args__ = (UniqueConstraint("tenant_id", "sha256"),)


class AssetName(Base):
    """The meaning of a tenant's image name: the asset that was last uploaded under that name."""

    __tablename__ = "asset_name"
    tenant_id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    asset_id: Mapped[str] = mapped_column(ID, ForeignKey("asset.id", ondelete="CASCADE"), index=True)


class AssetUse(Base):
    """Pairs of a job and an asset that the job reads. An asset that no job uses is deleted after `asset_retention_s` seconds."""

    __tablename__ = "asset_use"
    asset_id: Mapped[str] = mapped_column(ID, ForeignKey("asset.id"), primary_key=True)
    job_id: Mapped[str] = mapped_column(ID, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True, index=True)
