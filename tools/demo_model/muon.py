"""The Muon optimizer: momentum whose matrix updates are made orthogonal, for the inner weights of small networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import overload

import torch
from torch import Tensor, nn

from tools.demo_model.processor import has_fast_bfloat16

ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # a quintic whose iterates send every singular value close to 1


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonalized momentum of every weight; a convolution's weight counts as (outputs, rest)."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float = 0.02, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step from the gradients that are there; a closure is not called."""
        for group in self.param_groups:
            same_shape: dict[tuple[int, ...], list[tuple[nn.Parameter, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "mean" not in state:
                    state["mean"] = torch.zeros_like(parameter)
                state["mean"].lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(state["mean"], group["momentum"]).flatten(1)
                same_shape.setdefault(tuple(update.shape), []).append((parameter, update))
            for (rows, columns), pairs in same_shape.items():
                updates = orthogonal(torch.stack([update for _, update in pairs]))
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                for (parameter, _), update in zip(pairs, updates, strict=True):
                    parameter.add_(update.reshape(parameter.shape), alpha=-rate)
        return None


def orthogonal(matrices: Tensor) -> Tensor:
    """Replace the singular values of `matrices` (count, rows, columns) by about 1, without a decomposition."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    if has_fast_bfloat16():
        x = x.bfloat16()
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    result: Tensor = x.mT if tall else x
    return result.float()
