"""Quantised weights: int8 by torchao, fp8 by layerwise casting, nf4 by bitsandbytes on a GPU."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import torch
from torch import nn

from imagefarm.errors import RenderError
from worker.memory.capabilities import NEEDS_BITSANDBYTES, NEEDS_TORCHAO
from worker.memory.planner import Weights

KEPT_FROM_FP8 = ("pos_embed", "patch_embed", "embed", "norm", "^proj_in$", "^proj_out$", "t_embedder", "cap_embedder", "lm_head")
"""Small components in which rounding shows most."""


def narrow(modules: Iterable[nn.Module], weights: Weights, compute: torch.dtype) -> None:
    """Quantise the linear layers of `modules`; they still compute at `compute`.

    Modules are on the CPU; nf4 is packed when they are moved to the GPU. Raises RenderError("not_supported").
    """
    for module in modules:
        match weights:
            case Weights.INT8:
                quantization = _torchao()
                quantization.quantize_(module, quantization.Int8WeightOnlyConfig())
            case Weights.FP8:
                from diffusers.hooks.layerwise_casting import apply_layerwise_casting

                apply_layerwise_casting(
                    module, torch.float8_e4m3fn, compute, skip_modules_pattern=KEPT_FROM_FP8, non_blocking=True
                )
            case Weights.NF4:
                _to_nf4(module, _bitsandbytes(), compute)


def stored_bytes(tensor: torch.Tensor) -> int:
    """Bytes that a tensor really takes; a quantised tensor reports its unquantised size."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return sum(getattr(tensor, name).nbytes for name in names)
    return tensor.nbytes


def module_bytes(module: torch.nn.Module) -> int:
    """Bytes of a network's weights and buffers."""
    return sum(stored_bytes(tensor) for tensor in (*module.parameters(), *module.buffers()))


def _torchao() -> Any:
    """torchao's quantisation, hidden from the other libraries until now (see worker/__init__.py)."""
    if sys.modules.get("torchao", ModuleType) is None:
        del sys.modules["torchao"]
    # torchao warns about each kernel that was not built for this torch; int8 weights use none of them
    for talkative in ("torchao", "torch.utils._pytree"):
        logging.getLogger(talkative).setLevel(logging.ERROR)
    try:
        import torchao.quantization
    except ImportError:
        raise RenderError("not_supported", f"int8 weights: {NEEDS_TORCHAO}") from None
    return torchao.quantization


def _bitsandbytes() -> Any:
    if not torch.cuda.is_available():
        raise RenderError("not_supported", "nf4 weights need a GPU of NVIDIA or AMD; use an int8 tier")
    try:
        import bitsandbytes
    except ImportError:
        raise RenderError("not_supported", f"nf4 weights: {NEEDS_BITSANDBYTES}") from None
    return bitsandbytes


def _to_nf4(module: nn.Module, bitsandbytes: Any, compute: torch.dtype) -> None:
    for name, child in module.named_children():
        if not isinstance(child, nn.Linear):
            _to_nf4(child, bitsandbytes, compute)
            continue
        narrow_child = bitsandbytes.nn.Linear4bit(
            child.in_features, child.out_features, child.bias is not None, compute_dtype=compute, quant_type="nf4"
        )
        narrow_child.weight = bitsandbytes.nn.Params4bit(child.weight.data, requires_grad=False, quant_type="nf4")
        narrow_child.bias = child.bias
        setattr(module, name, narrow_child)
