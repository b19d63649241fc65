"""Grouping images into forward passes: equal keys, and lengths close enough that padding wastes less than a quarter."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

Item = TypeVar("Item")

MAX_WASTE = 0.25
"""Largest share of a pass that may be padding."""


def group(
    items: Sequence[Item],
    *,
    key: Callable[[Item], Hashable],
    tokens: Callable[[Item], int],
    cap: Callable[[int], int],
) -> list[list[Item]]:
    """Partition `items` into passes of equal `key`, at most `cap(longest tokens)` items each, with padding under MAX_WASTE.

    Example: lengths 96, 96, 320 give [320] and [96, 96], because one pass of three would be 46 % padding.
    """
    by_key: dict[Hashable, list[Item]] = {}
    for item in items:
        by_key.setdefault(key(item), []).append(item)
    passes: list[list[Item]] = []
    for members in by_key.values():
        # longest first: the first item sets the padded length. The sort is stable, so slots keep their order.
        current: list[Item] = []
        longest = total = 0
        for item in sorted(members, key=tokens, reverse=True):
            length = tokens(item)
            fits = current and len(current) < cap(longest)
            if fits and longest * (len(current) + 1) - (total + length) < MAX_WASTE * longest * (len(current) + 1):
                current.append(item)
                total += length
            else:
                current, longest, total = [item], length, length
                passes.append(current)
    return passes
