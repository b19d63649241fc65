"""Seeds of a batch: the same for all, one a row, derived from the SKU, or drawn."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from imagefarm.recipe import MAX_SEED

JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class SeedPolicy(StrEnum):
    FIXED = "fixed"
    """Every row has the given seed."""
    ROW = "row"
    """The given seed (or 0) plus the row's number."""
    SKU = "sku"
    """Derived from SKU and variant: the same table sent again gives the same pictures."""
    RANDOM = "random"
    """Drawn anew for every picture."""


def seed_of_sku(sku: str, variant: Mapping[str, Any], base: int = 0) -> int:
    """The seed of a product's variant: 32 bits, which other tools show and people retype. Another `base`, other pictures."""
    return int.from_bytes(hashlib.sha256(JSON.encode([sku, dict(variant), base]).encode()).digest()[:4], "big")


def choose_seed(policy: SeedPolicy, *, base: int | None, row: int, sku: str | None, variant: Mapping[str, Any]) -> int:
    """The seed of one job. Raises ValueError saying what the policy lacks."""
    match policy:
        case SeedPolicy.FIXED:
            if base is None:
                raise ValueError("seeds=fixed needs a seed among the defaults")
            return base
        case SeedPolicy.ROW:
            return ((base or 0) + row) % (MAX_SEED + 1)
        case SeedPolicy.SKU:
            if sku is None:
                raise ValueError("seeds=sku needs a value in the column sku")
            return seed_of_sku(sku, variant, base or 0)
        case SeedPolicy.RANDOM:
            return secrets.randbits(32)


def next_seed(seed: int) -> int:
    """The seed after this one, for a picture that is rendered again: 32 bits derived from it, whatever the policy.

    The same everywhere, so that the same table with the same decisions gives the same pictures; and never a sibling's, as
    seed + 1 would be where a job makes several.
    """
    return int.from_bytes(hashlib.sha256(f"next {seed}".encode()).digest()[:4], "big")
