"""Python's garbage collector in a long-lived process: objects that stay for its life are frozen.

The imported libraries are up to a million objects. Python examines all of them only once a quarter as many new ones exist, so
cyclic garbage would grow by some ten megabytes first. That full collection also takes longer than a step of a worker, and stops
every request of the API for 100 ms. Frozen objects (`gc.freeze`) are not examined, so full collections come early and are short.
"""

from __future__ import annotations

import gc


def freeze_startup_objects() -> None:
    """Freeze all objects that exist now. Call it once the process has imported and loaded what it needs."""
    gc.collect()
    gc.freeze()
    gc.collect()  # resets the count of old objects, which decides when full collections run
