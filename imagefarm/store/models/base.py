"""The base of all tables. Times are seconds since 1970 (UTC) on the database's clock; seeds are exact decimal text."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Boolean, Double, MetaData, String
from sqlalchemy.orm import DeclarativeBase

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
}
ID = String(40)
"""An id: a prefix and a ULID."""
HASH = String(64)
"""A SHA-256 in hexadecimal."""


class Base(DeclarativeBase):
    """The base of every table. Its `metadata` has all tables once the package `imagefarm.store.models` is imported."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy as a class attribute
        float: Double(),
        str: String(255),
        bool: Boolean(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
    }
