"""Inserts that meet a row which is there (`ON CONFLICT`): SQLAlchemy has them in each database's own form only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite


def per_dialect(make: Callable[[Any], Any]) -> dict[str, Any]:
    """What `make` makes of each database's `insert`, by the name of the dialect."""
    return {"sqlite": make(sqlite.insert), "postgresql": make(postgresql.insert)}
