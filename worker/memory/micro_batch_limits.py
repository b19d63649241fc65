"""What passes were seen to take and to hold: by size and number of images, kept with the model and remembered in SQL."""

from __future__ import annotations

from typing import Any

MAX_PEAKS = 64
"""Peaks that are kept in SQL: the highest."""
MEASUREMENTS = 3
"""Each shape is measured so often; then its peak is known."""


class MicroBatchLimits:
    """How many images a pass may have, by their size in it (tokens for the denoiser, pixels for the decoder).

    Two sources: passes that ran out of memory, and peaks that were measured. From a peak the bytes of one image and unit of
    size follow; a pass grows in proportion to both.
    """

    def __init__(self) -> None:
        self.changed = False
        """Whether something was learnt since it was last kept."""
        self._limits: dict[int, int] = {}
        self._peaks: dict[tuple[int, int], int] = {}
        self._measured: dict[tuple[int, int], int] = {}
        self._alone: int | None = None

    def cap(self, size: int, most: int, *, free: int | None = None) -> int:
        """At most so many images of `size` in a pass, and at least one: the device has the last word.

        What a smaller size could not hold, a larger one cannot either. `free` bytes bound it further where peaks are known.
        """
        held = [most, *(cap for known, cap in self._limits.items() if known <= size)]
        per_unit = self.bytes_per_unit(size)
        if free is not None and per_unit > 0:
            held.append(int(free / (per_unit * size)))
        return max(1, min(held))

    def learn(self, size: int, cap: int) -> None:
        """A pass of more than `cap` images of this size ran out of memory."""
        self._limits[size] = min(cap, self._limits.get(size, cap))
        self.changed = True

    def learn_alone(self, size: int) -> None:
        """One image of this size ran out of memory by itself."""
        if not self.fails_alone(size):
            self._alone, self.changed = size, True

    def fails_alone(self, size: int) -> bool:
        """Whether one image as large as this, or smaller, is known to run out of memory by itself."""
        return self._alone is not None and size >= self._alone

    def wants(self, size: int, images: int) -> bool:
        """Whether a pass of this shape is still worth measuring."""
        return self._measured.get((size, images), 0) < MEASUREMENTS

    def measured(self, size: int, images: int, nbytes: int) -> None:
        """A pass of this shape took so many bytes at its peak, besides what was there before."""
        shape = (size, images)
        self._measured[shape] = self._measured.get(shape, 0) + 1
        if nbytes > self._peaks.get(shape, 0):
            self._peaks[shape] = nbytes
            self.changed = True

    def bytes_per_unit(self, size: int) -> float:
        """The most that one image took for each unit of its size; 0 until one was measured.

        Passes of much smaller images are left out where there are others: what a pass takes whatever its size weighs
        heavily on them.
        """
        shares = {shape: nbytes / (shape[0] * shape[1]) for shape, nbytes in self._peaks.items()}
        alike = [share for (known, _), share in shares.items() if 2 * known >= size]
        return max(alike or shares.values(), default=0.0)

    def as_data(self) -> dict[str, Any]:
        """For SQL."""
        return {
            "limits": {str(size): cap for size, cap in sorted(self._limits.items())},
            "alone": self._alone,
            "peaks": [[*shape, nbytes] for shape, nbytes in sorted(self._peaks.items(), key=lambda item: item[1])[-MAX_PEAKS:]],
        }

    def restore(self, data: dict[str, Any]) -> None:
        """Take in what was kept; what has been learnt since stays where it is stricter."""
        changed = self.changed
        for size, cap in data.get("limits", {}).items():
            self.learn(int(size), int(cap))
        if data.get("alone"):
            self.learn_alone(int(data["alone"]))
        for size, images, nbytes in data.get("peaks", []):
            self._peaks[size, images] = max(int(nbytes), self._peaks.get((size, images), 0))
        self.changed = changed
