"""Private parts of torch's compiler and of diffusers' attention that acceleration uses. No other file uses them.

torch 2.13 and diffusers 0.42. `tests/worker/models/test_torch_private.py` fails when one of them changes.
"""

from __future__ import annotations

from typing import Any

import torch


def ignore_compiler_errors() -> None:
    """Run a pass uncompiled if the compiler fails from now on."""
    torch._dynamo.config.suppress_errors = True


def allow_recompilations(number: int) -> None:
    """Let each function be compiled for at least `number` kinds of inputs."""
    torch._dynamo.config.recompile_limit = max(number, torch._dynamo.config.recompile_limit)


def discard_compiled(module: Any) -> None:
    """Make a module and all modules in it run uncompiled."""
    for part in module.modules():
        part._compiled_call_impl = None


def is_compiled(module: Any) -> bool:
    """Whether this module was compiled or is compiled when it first runs."""
    return module._compiled_call_impl is not None


def set_attention_backend(denoiser: Any, name: str) -> bool:
    """Make all of a denoiser's attention use diffusers' backend `name`; return whether any of it can.

    The model's own method would also change the default of the whole process.
    """
    from diffusers.models.attention_dispatch import AttentionBackendName

    processors = [
        module.processor for module in denoiser.modules() if hasattr(getattr(module, "processor", None), "_attention_backend")
    ]
    for processor in processors:
        processor._attention_backend = AttentionBackendName(name)
    return bool(processors)
