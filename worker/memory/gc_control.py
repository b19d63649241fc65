"""Garbage among what a worker has set aside from Python's collector (see imagefarm.gc_control)."""

from __future__ import annotations

import gc

from imagefarm.gc_control import freeze_startup_objects


def collect_frozen() -> None:
    """Collect also among what was set aside: a model that leaves may have been among it, and is full of cycles."""
    if not gc.get_freeze_count():
        gc.collect()
        return
    gc.unfreeze()
    freeze_startup_objects()
