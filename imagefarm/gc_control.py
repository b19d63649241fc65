"""Python's garbage collector in a process that lives long: what stays for its life is set aside.

The libraries that it imports are up to a million objects. Python looks at all of them only once a quarter as many new ones have
piled up, so cyclic garbage would grow by some ten megabytes before it goes; and that look takes longer than a step of a worker,
and stops every request of the API for 100 ms. Set aside (`gc.freeze`), they are looked at no more: full collections come early
and are short.
"""

from __future__ import annotations

import gc


def freeze_startup_objects() -> None:
    """Set aside all that there is now. To be called once what the process needs has been imported and loaded."""
    gc.collect()
    gc.freeze()
    gc.collect()  # so that its count of old objects, which decides when to look at them, begins at none
