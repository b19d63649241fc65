"""Python's garbage collector in a long-lived process: objects that live as long as the process are frozen.

The imported libraries create up to a million objects. Python runs a full collection only after a quarter as many new objects
exist, so cyclic garbage would first grow by some ten megabytes. A full collection also takes longer than a denoising step, and
it stops every request of the API for 100 ms. Frozen objects (`gc.freeze`) are not examined, so full collections run early and
are short.
"""

from __future__ import annotations

import gc


def freeze_startup_objects() -> None:
    """Freeze all objects that exist now. Call it after the process has imported and loaded everything that it keeps."""
    gc.collect()
    gc.freeze()
    gc.collect()  # resets the count of old objects, which decides when full collections run
