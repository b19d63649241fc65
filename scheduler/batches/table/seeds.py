"""Seeds of a batch: one for all rows, one per row, derived from the SKU, or random."""

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
    """The given seed (or 0) plus the row number."""
    SKU = "sku"
    """Derived from SKU and variant: submitting the same table again gives the same images."""
    RANDOM = "random"
    """A random seed for every job."""


def seed_of_sku(sku: str, variant: Mapping[str, Any], base: int = 0) -> int:
    """The seed of a product's variant: 32 bits, short enough to retype. Another `base` gives other images."""
    return int.from_bytes(hashlib.sha256(JSON.encode([sku, dict(variant), base]).encode()).digest()[:4], "big")


def choose_seed(policy: SeedPolicy, *, base: int | None, row: int, sku: str | None, variant: Mapping[str, Any]) -> int:
    """The seed of one job. Raises ValueError naming the value that the policy needs."""
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
    """The seed of a re-roll of an image with this seed: 32 bits derived from it, whatever the policy.

    It depends on nothing else, so the same table with the same decisions gives the same images. seed + 1 would be the seed of
    another image if the job renders several.
    """
    return int.from_bytes(hashlib.sha256(f"next {seed}".encode()).digest()[:4], "big")
