"""Learned limits of micro-batches: the memory of passes, by size and number of images. Kept with the model and in SQL."""

from __future__ import annotations

from typing import Any

MAX_PEAKS = 64
"""Number of peaks that are stored in SQL, the highest ones."""
MEASUREMENTS = 3
"""Number of measurements of one shape; after that its peak is known."""


class MicroBatchLimits:
    """How many images a pass may have, by their size in it (tokens in the denoiser, pixels in the decoder).

    There are two sources: passes that ran out of memory, and measured peaks. A pass grows in proportion to its number of images
    and to their size, so a peak gives the bytes of one image per unit of size.
    """

    def __init__(self) -> None:
        self.changed = False
        """Whether anything was learned since the last save."""
        self._limits: dict[int, int] = {}
        self._peaks: dict[tuple[int, int], int] = {}
        self._measured: dict[tuple[int, int], int] = {}
        self._alone: int | None = None

    def cap(self, size: int, most: int, *, free: int | None = None) -> int:
        """The most images of `size` in one pass; at least one, because only the device knows.

        A number that a smaller size could not hold is ruled out for a larger size too. `free` bytes bound it further where peaks
        are known.
        """
        held = [most, *(cap for known, cap in self._limits.items() if known <= size)]
        per_unit = self.bytes_per_unit(size)
        if free is not None and per_unit > 0:
            held.append(int(free / (per_unit * size)))
        return max(1, min(held))

    def learn(self, size: int, cap: int) -> None:
        """Record that a pass of more than `cap` images of this size ran out of memory."""
        self._limits[size] = min(cap, self._limits.get(size, cap))
        self.changed = True

    def learn_alone(self, size: int) -> None:
        """Record that one image of this size ran out of memory on its own."""
        if not self.fails_alone(size):
            self._alone, self.changed = size, True

    def fails_alone(self, size: int) -> bool:
        """Whether one image of this size or smaller is known to run out of memory on its own."""
        return self._alone is not None and size >= self._alone

    def wants(self, size: int, images: int) -> bool:
        """Whether a pass of this shape is still worth measuring."""
        return self._measured.get((size, images), 0) < MEASUREMENTS

    def measured(self, size: int, images: int, nbytes: int) -> None:
        """Record the peak of a pass of this shape, in bytes beyond what was allocated before."""
        shape = (size, images)
        self._measured[shape] = self._measured.get(shape, 0) + 1
        if nbytes > self._peaks.get(shape, 0):
            self._peaks[shape] = nbytes
            self.changed = True

    def bytes_per_unit(self, size: int) -> float:
        """The most bytes that one image took per unit of size; 0 until one was measured.

        Passes of much smaller images are ignored where there are larger ones, because the fixed cost of a pass dominates them.
        """
        shares = {shape: nbytes / (shape[0] * shape[1]) for shape, nbytes in self._peaks.items()}
        alike = [share for (known, _), share in shares.items() if 2 * known >= size]
        return max(alike or shares.values(), default=0.0)

    def as_data(self) -> dict[str, Any]:
        """The limits as JSON, for SQL."""
        return {
            "limits": {str(size): cap for size, cap in sorted(self._limits.items())},
            "alone": self._alone,
            "peaks": [[*shape, nbytes] for shape, nbytes in sorted(self._peaks.items(), key=lambda item: item[1])[-MAX_PEAKS:]],
        }

    def restore(self, data: dict[str, Any]) -> None:
        """Load stored limits. Where a limit learned since is stricter, it stays."""
        changed = self.changed
        for size, cap in data.get("limits", {}).items():
            self.learn(int(size), int(cap))
        if data.get("alone"):
            self.learn_alone(int(data["alone"]))
        for size, images, nbytes in data.get("peaks", []):
            self._peaks[size, images] = max(int(nbytes), self._peaks.get((size, images), 0))
        self.changed = changed
