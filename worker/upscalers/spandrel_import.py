"""Imports spandrel without torchvision.

At import, spandrel needs three names of torchvision for two architectures that the farm does not load, and a torchvision that
does not match torch breaks diffusers. Stand-ins for those names exist only while spandrel is imported. transformers and
diffusers, which also look for torchvision, are imported first and never see them.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from typing import Any

import diffusers  # noqa: F401 - before the stand-ins are there
import transformers  # noqa: F401

from imagefarm.errors import RenderError

NAMES = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


@functools.cache
def import_spandrel() -> Any:
    """The spandrel module. Call it under the loading lock, so that no other import runs. Raises RenderError("not_supported")."""
    if importlib.util.find_spec("spandrel") is None:
        remedy = "pip install --no-deps spandrel==0.4.2, or use lanczos"
        raise RenderError("not_supported", f"upscale.model: spandrel is not installed on this worker; {remedy}")
    stand_ins = {} if importlib.util.find_spec("torchvision") else _stand_ins()
    sys.modules.update(stand_ins)
    try:
        import spandrel
    finally:
        for name in stand_ins:
            sys.modules.pop(name, None)
    return spandrel


def _stand_ins() -> dict[str, types.ModuleType]:
    modules = {name: types.ModuleType(name) for name in NAMES}

    def missing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("this architecture needs torchvision, which the farm does without")

    functional: Any = modules[NAMES[2]]
    functional.InterpolationMode = types.SimpleNamespace(NEAREST="nearest", BILINEAR="bilinear")
    functional.rotate = functional.normalize = missing
    return modules
