"""The private parts of torch and diffusers that acceleration uses: a new version that changed them fails here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.transformers.transformer_z_image import ZSingleStreamAttnProcessor

from worker.models.torch_private import (
    allow_recompilations,
    discard_compiled,
    ignore_compiler_errors,
    is_compiled,
    set_attention_backend,
)


@pytest.fixture(autouse=True)
def compiler(loads_model: None) -> Iterator[None]:
    before = torch._dynamo.config.recompile_limit
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    torch._dynamo.config.suppress_errors, torch._dynamo.config.recompile_limit = False, before


class Layer(torch.nn.Module):
    """torch compiles no module of its own by itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 + 1


def broken(*_: Any) -> Callable[..., Any]:
    raise RuntimeError("no space left for kernels")


def test_a_compiler_that_fails_is_ignored_and_what_it_made_discarded() -> None:
    layers = torch.nn.Sequential(Layer(), torch.nn.ReLU())
    assert not is_compiled(layers[0])
    layers[0].compile(backend=broken)
    assert is_compiled(layers[0])
    with pytest.raises(Exception, match="no space left"):
        layers(torch.ones(1, 2))
    ignore_compiler_errors()
    assert layers(torch.ones(1, 2)).shape == (1, 2)
    torch._dynamo.config.suppress_errors = False
    torch._dynamo.reset()
    discard_compiled(layers)
    assert not is_compiled(layers[0])
    assert layers(torch.ones(1, 2)).shape == (1, 2)


def test_how_often_a_function_may_be_compiled() -> None:
    calls: list[int] = []

    def backend(graph: Any, _inputs: Any) -> Callable[..., Any]:
        calls.append(1)
        forward: Callable[..., Any] = graph.forward
        return forward

    torch._dynamo.config.recompile_limit = 2
    allow_recompilations(4)
    allow_recompilations(1)
    layer = Layer()
    layer.compile(backend=backend, dynamic=False)
    for size in range(2, 9):
        layer(torch.ones(size))
    assert torch._dynamo.config.recompile_limit == 4
    assert len(calls) == 4


def test_attention_that_takes_another_backend_and_none_that_does() -> None:
    attention = torch.nn.Module()
    attention.processor = ZSingleStreamAttnProcessor()
    assert set_attention_backend(attention, "_native_math")
    assert attention.processor._attention_backend is AttentionBackendName("_native_math")
    assert not set_attention_backend(torch.nn.Linear(1, 1), "_native_math")
