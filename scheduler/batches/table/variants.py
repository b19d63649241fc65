"""Variants: a small matrix such as `{"view": ["front", "side"], "background": [...]}` that multiplies every row."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from imagefarm.text import Text
from scheduler.batches.table.columns import column_name

MAX_COMBINATIONS = 1000


def _names(matrix: dict[str, list[Any]]) -> dict[str, list[Any]]:
    clean: dict[str, list[Any]] = {}
    for name, values in matrix.items():
        key = column_name(name)
        if not key.isidentifier() or key in {"prompt", "custom_id"}:
            raise ValueError(f"{name!r} cannot be a variant's name; use letters, digits and _")
        if key in clean:
            raise ValueError(f"two variants are called {key!r}; give each its own name")
        if len({str(value) for value in values}) < len(values):
            raise ValueError(f"{name!r} has a value twice; write each once")
        clean[key] = values
    if math.prod(len(values) for values in clean.values()) > MAX_COMBINATIONS:
        raise ValueError(f"gives more than {MAX_COMBINATIONS} combinations; send several batches")
    return clean


Value = Annotated[Text, Field(min_length=1, max_length=1000)] | int | float
Variants = Annotated[
    dict[Annotated[Text, Field(min_length=1, max_length=64)], Annotated[list[Value], Field(min_length=1, max_length=1000)]],
    Field(max_length=10),
    AfterValidator(_names),
]
"""Values by name; each name is a variable of the template, or a recipe field that it sets."""


def combinations(matrix: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Every combination, the last name varying fastest; one empty combination without variants.

    >>> combinations({"view": ["front", "side"], "size": [1]})
    [{'view': 'front', 'size': 1}, {'view': 'side', 'size': 1}]
    """
    return [dict(zip(matrix, values, strict=True)) for values in itertools.product(*matrix.values())]
