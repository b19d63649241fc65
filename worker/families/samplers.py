"""The samplers of UNet models, by the names that recipes use."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
)

from imagefarm.errors import RenderError

SAMPLERS: dict[str, Any] = {
    "euler": EulerDiscreteScheduler,
    "euler-ancestral": EulerAncestralDiscreteScheduler,
    "dpm++-2m": DPMSolverMultistepScheduler,
    "ddim": DDIMScheduler,
    "lcm": LCMScheduler,
}


def make_scheduler(sampler: str, config: Any) -> Any:
    """A new scheduler of `sampler` for a model whose own scheduler has `config`.

    Raises RenderError("not_supported") with the known samplers.
    """
    if sampler not in SAMPLERS:
        raise RenderError("not_supported", f"no sampler {sampler!r}; use one of {', '.join(SAMPLERS)}")
    return SAMPLERS[sampler].from_config(config)


@functools.cache
def takes_generator(step: Callable[..., Any]) -> bool:
    """Whether a scheduler's step may draw noise of its own."""
    return "generator" in inspect.signature(step).parameters
