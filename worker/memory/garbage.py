"""Python's garbage collector in a worker: what stays for the worker's life is set aside.

The libraries that a worker imports are about a million objects. Python looks at all of them only once a quarter as many new
ones have piled up, so cyclic garbage would grow by some ten megabytes before it goes, and that look takes longer than a step.
Set aside (`gc.freeze`), they are looked at no more: full collections come early and are short.
"""

from __future__ import annotations

import gc


def settle() -> None:
    """Set aside all that there is now. To be called once what a worker needs has been imported and loaded."""
    gc.collect()
    gc.freeze()
    gc.collect()  # so that its count of old objects, which decides when to look at them, begins at none


def collect_all() -> None:
    """Collect also among what was set aside: a model that leaves may have been among it, and is full of cycles."""
    if not gc.get_freeze_count():
        gc.collect()
        return
    gc.unfreeze()
    settle()
