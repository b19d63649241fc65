"""Garbage collection that includes objects frozen at start-up (see imagefarm.gc_control)."""

from __future__ import annotations

import gc

from imagefarm.gc_control import freeze_startup_objects


def collect_frozen() -> None:
    """Collect frozen objects too. An unloaded model may be among them, and it is full of reference cycles."""
    if not gc.get_freeze_count():
        gc.collect()
        return
    gc.unfreeze()
    freeze_startup_objects()
