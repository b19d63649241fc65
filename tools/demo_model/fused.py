"""Fused CPU operations for training, with gradients: fused.c compiled with the C compiler and wrapped for autograd.

All tensors are float32 on the CPU. They take about half of the time of the same operations in plain torch.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import ctypes
import functools
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tools.demo_model.processor import has_fast_bfloat16

HEAD = 32  # features per attention head; fixed in fused.c
SOURCE = Path(__file__).with_name("fused.c")
BUILD = Path(__file__).with_name("work")


@functools.cache
def library() -> ctypes.CDLL:
    """Compile fused.c for this machine, once per version of the source, and load it."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    target = BUILD / f"fused-{digest}.so"
    if not target.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise RuntimeError("training needs a C compiler: neither cc nor gcc was found")
        options = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-fPIC"]
        with tempfile.TemporaryDirectory(dir=BUILD) as folder:
            compiled, built = Path(folder) / "fused.o", Path(folder) / target.name
            subprocess.run([compiler, *options, "-c", "-o", str(compiled), str(SOURCE)], check=True)
            # linked without -ffast-math: with it, loading the library turns subnormal numbers off in the whole process
            subprocess.run([compiler, "-fopenmp", "-shared", "-o", str(built), str(compiled), "-lm"], check=True)
            built.rename(target)
    return ctypes.CDLL(str(target))


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, residual: Tensor | None, eps: float) -> Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        residual = None if residual is None else residual.contiguous()
        out, scale = torch.empty_like(x), x.new_empty(x.shape[:2])
        arguments = [_pointer(tensor) for tensor in (x, weight, residual, out, scale)]
        library().norm_forward(*arguments, *x.shape, ctypes.c_float(eps))
        ctx.save_for_backward(x, weight, scale)
        ctx.has_residual = residual is not None
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        grad = grads[0].contiguous()
        dx, dweight = torch.empty_like(x), torch.empty_like(weight)
        library().norm_backward(*(_pointer(tensor) for tensor in (grad, x, weight, scale, dx, dweight)), *x.shape)
        return dx, dweight, grad if ctx.has_residual else None, None


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, weight: Tensor, turns: Tensor, eps: float) -> tuple[Tensor, ...]:
        qkv, weight = qkv.contiguous(), weight.contiguous()
        batch, length, _, heads, size = qkv.shape
        out = qkv.new_empty(2, batch, heads, length, size)
        scale = qkv.new_empty(batch, length, 2, heads)
        arguments = [_pointer(tensor) for tensor in (qkv, weight, turns[0], turns[1], out, scale)]
        library().heads_forward(*arguments, batch, length, heads, ctypes.c_float(eps))
        ctx.save_for_backward(qkv, weight, turns, scale)
        return out[0], out[1], qkv[:, :, 2].transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        qkv, weight, turns, scale = ctx.saved_tensors
        batch, length, _, heads, size = qkv.shape
        grad = torch.stack(grads[:2])
        dqkv, dweight = torch.empty_like(qkv), qkv.new_empty(batch, 2, size)
        arguments = [_pointer(tensor) for tensor in (grad, qkv, weight, turns[0], turns[1], scale, dqkv, dweight)]
        library().heads_backward(*arguments, batch, length, heads)
        dqkv[:, :, 2] = grads[2].transpose(1, 2)
        return dqkv, dweight.sum(0), None, None


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        width = x.shape[-1] // 2
        out = x.new_empty(*x.shape[:-1], width)
        library().gate_forward(_pointer(x), _pointer(out), ctypes.c_long(out.numel() // width), width)
        ctx.save_for_backward(x)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        width, grad, dx = x.shape[-1] // 2, grads[0].contiguous(), torch.empty_like(x)
        library().gate_backward(_pointer(grad), _pointer(x), _pointer(dx), ctypes.c_long(grad.numel() // width), width)
        return dx


class _Linear16(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x16, weight16 = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x16, weight16)
        return torch.nn.functional.linear(x16, weight16).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x16, weight16 = ctx.saved_tensors
        grad16 = grads[0].bfloat16()
        dweight = grad16.flatten(0, -2).mT @ x16.flatten(0, -2)
        return (grad16 @ weight16).float(), dweight.float()


def norm(x: Tensor, weight: Tensor, residual: Tensor | None, eps: float) -> Tensor:
    """`residual` + rms_norm(`x`) * `weight`; x (batch, length, width), weight (batch, width), residual like x or None."""
    out: Tensor = _Norm.apply(x, weight, residual, eps)
    return out


def heads(qkv: Tensor, weight: Tensor, turns: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Query and key after norm and rotation, and value, each (batch, heads, length, HEAD).

    `qkv` is (batch, length, 3, heads, HEAD), `weight` (2, HEAD); `turns` (2, length, HEAD / 2), contiguous, holds the cosines
    and the sines of the rotation.
    """
    query, key, value = _Heads.apply(qkv, weight, turns, eps)
    return query, key, value


def gate(x: Tensor) -> Tensor:
    """SwiGLU: `x` (..., 2 * width) holds a and b; silu(a) * b is (..., width)."""
    out: Tensor = _Gate.apply(x)
    return out


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """`x` (..., inputs) times `weight` (outputs, inputs) transposed; in bfloat16 where that is fast, out in float32."""
    if has_fast_bfloat16():
        out: Tensor = _Linear16.apply(x, weight)
        return out
    return torch.nn.functional.linear(x, weight)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention of tensors (batch, heads, length, HEAD), like `query`.

    Written out where bfloat16 is fast: at a few hundred tokens that takes half of the time of torch's own kernel.
    """
    if not has_fast_bfloat16():
        return torch.nn.functional.scaled_dot_product_attention(query, key, value)
    scores = (query * query.shape[-1] ** -0.5).bfloat16() @ key.bfloat16().mT
    mixed: Tensor = scores.softmax(-1) @ value.bfloat16()
    return mixed.float()
