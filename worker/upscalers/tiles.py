"""Upscaling tile by tile: the tile bounds the memory, and the running set takes steps between two tiles."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from imagefarm.errors import RenderError
from worker.failures import is_out_of_memory
from worker.memory.device_cache import free_cached
from worker.upscalers.nets import Net

MIN_SIDE = 32
GRID = 8
"""Tiles start at multiples of this, so a network that works in windows sees the windows of the whole image."""

Tile = tuple[slice, slice, slice, slice]
"""Rows and columns that are read, and rows and columns that are written."""


class TiledUpscale:
    """One image on its way through a network."""

    def __init__(self, pixels: NDArray[np.uint8], net: Net) -> None:
        self._pixels = pixels
        self._net = net
        self._side = net.side
        height, width, _ = pixels.shape
        self.result = np.zeros((height * net.scale, width * net.scale, 3), np.uint8)
        self._tiles = list(tiles(height, width, self._side, net.overlap))[::-1]
        self.seconds = 0.0

    @property
    def facts(self) -> dict[str, Any]:
        """Facts for the audit."""
        return {**self._net.facts, "tile": self._side, "ms": round(1000 * self.seconds, 3)}

    def advance(self, budget_s: float) -> bool:
        """Upscale further tiles, at least one, until `budget_s` is spent; return whether the image is complete.

        Raises RenderError: "oom" when even a small tile does not fit, or "nan_output".
        """
        began = time.perf_counter()
        while self._tiles:
            self._upscale_tile(self._tiles[-1])
            if time.perf_counter() - began >= budget_s:
                break
        self.seconds += time.perf_counter() - began
        return not self._tiles

    def _upscale_tile(self, tile: Tile) -> None:
        try:
            written = self._run(tile)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            written = None
        if written is None:  # outside the handler, whose frames would keep the tile's tensors alive
            self._make_smaller()
            return
        self._tiles.pop()
        rows, columns, own_rows, own_columns = tile
        scale = self._net.scale
        place = np.s_[
            (rows.start + own_rows.start) * scale : (rows.start + own_rows.stop) * scale,
            (columns.start + own_columns.start) * scale : (columns.start + own_columns.stop) * scale,
        ]
        inside = np.s_[own_rows.start * scale : own_rows.stop * scale, own_columns.start * scale : own_columns.stop * scale]
        self.result[place] = written[inside]

    @torch.inference_mode()
    def _run(self, tile: Tile) -> NDArray[np.uint8]:
        net = self._net
        piece = np.ascontiguousarray(self._pixels[tile[0], tile[1]])
        unit = torch.from_numpy(piece).to(net.device).permute(2, 0, 1)[None].to(net.dtype) / 255
        large = net.model(unit)[0].float()
        finite = torch.isfinite(large).all()
        pixels = (large.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu()
        if not bool(finite):
            raise RenderError("nan_output", f"upscaler {net.name} gave numbers that are not finite at {net.dtype}")
        upscaled: NDArray[np.uint8] = pixels.numpy()
        return upscaled

    def _make_smaller(self) -> None:
        """Start again with tiles of half the side. Mixing sizes would give more seams."""
        free_cached(self._net.device)
        self._side //= 2
        if self._side < MIN_SIDE:
            raise RenderError("oom", f"upscaler {self._net.name}: a tile of {2 * self._side} ran out of memory; use lanczos")
        height, width, _ = self._pixels.shape
        self._tiles = list(tiles(height, width, self._side, min(self._net.overlap, self._side // 4)))[::-1]


def tiles(height: int, width: int, side: int, overlap: int) -> Iterator[Tile]:
    """Tiles of at most `side` that cover an image. Each reads `overlap` more than it writes, towards its neighbours."""
    for top, bottom in _spans(height, side, overlap):
        for left, right in _spans(width, side, overlap):
            first_row, last_row = max(0, top - overlap), min(height, bottom + overlap)
            first_column, last_column = max(0, left - overlap), min(width, right + overlap)
            yield (
                slice(first_row, last_row),
                slice(first_column, last_column),
                slice(top - first_row, bottom - first_row),
                slice(left - first_column, right - first_column),
            )


def _spans(length: int, side: int, overlap: int) -> Iterator[tuple[int, int]]:
    if length <= side:
        yield 0, length
        return
    number = -(-length // (side - 2 * overlap))
    inner = [GRID * round(place * length / number / GRID) for place in range(1, number)]
    yield from pairwise([0, *inner, length])
