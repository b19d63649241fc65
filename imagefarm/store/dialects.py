"""Upserts (`ON CONFLICT`), which SQLAlchemy offers only in each dialect's own form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite


def per_dialect(make: Callable[[Any], Any]) -> dict[str, Any]:
    """The result of `make` for each dialect's `insert`, by dialect name."""
    return {"sqlite": make(sqlite.insert), "postgresql": make(postgresql.insert)}
