"""Data-parallel training in a few single-threaded processes on one machine.

The small transformer's operations are too short for threads to share them well; processes share whole samples.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.multiprocessing.spawn import start_processes


class ProcessGroup:
    """The processes that train together: this one is number `rank` of `size`."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def average(self, parameters: Sequence[nn.Parameter], number: float) -> float:
        """Average the gradients over all processes, in place, and return the average of their `number`.

        Every process leaves with the same values to the last bit, so that weights stay alike without being sent.
        """
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.size == 1:
            return number
        flat = torch.cat([*(grad.flatten() for grad in grads), torch.tensor([number])])
        distributed.all_reduce(flat)
        flat /= self.size
        for grad, part in zip(grads, flat[:-1].split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))
        return float(flat[-1])


def run_process_group(work: Callable[..., None], size: int, *arguments: Any) -> None:
    """Call `work(group, *arguments)` in `size` processes at once and wait for all of them."""
    if size == 1:
        work(ProcessGroup(0, 1), *arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        start_processes(_member, args=(size, meeting, work, arguments), nprocs=size, start_method="spawn")


def _member(rank: int, size: int, meeting: str, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // size))
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    work(ProcessGroup(rank, size), *arguments)
    distributed.destroy_process_group()
