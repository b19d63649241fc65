"""Selects the tier at which this machine loads a model: the requested one, or the best that fits."""

from __future__ import annotations

import os

import torch

from imagefarm.catalogue import Catalogue
from imagefarm.errors import ConfigurationError, RenderError
from imagefarm.model_entry import ModelEntry
from worker.memory.capabilities import unavailable_tiers, unhelpful_tiers
from worker.memory.planner import GIB, ModelSize, Plan, Tier, best, plan, weight_bytes
from worker.memory.sizes import model_size, shapes_of

AUTO = "auto"


def select_tier(
    entry: ModelEntry,
    catalogue: Catalogue,
    device: torch.device,
    *,
    width: int,
    wanted: str = AUTO,
    memory: int,
    budget: int | None = None,
    below: Tier | None = None,
    max_images: int = 16,
    tiled: bool = False,
) -> Plan:
    """The plan by which to load a model.

    `memory` is what tensors may take on the device, `budget` what weights may take if the operator set it, `width` the bytes of
    a full parameter there. `below` excludes this tier, which ran out of memory, and all tiers that hold as many weights or more.
    Raises RenderError: "oom" if nothing fits the budget, "not_supported" if the requested tier is unavailable here.
    """
    size, _ = size_or_nothing(entry, catalogue, width)
    plans = plan(
        size,
        memory,
        shapes_of(entry),
        max_images=max_images,
        unavailable=unavailable_tiers(device.type),
        tiled=tiled,
        context_bytes=0,  # the process already has its CUDA context
    )
    tiers = {candidate.tier: candidate for candidate in plans}
    named = entry.tier if entry.tier != AUTO else wanted
    if named != AUTO and below is None:
        chosen = tiers[Tier(named)]
        if chosen.unavailable_reason:
            raise RenderError("not_supported", f"model {entry.name}: tier {named} {chosen.unavailable_reason}")
        if budget is not None and chosen.weight_bytes > budget:
            raise _over_budget(entry, chosen, budget)
        return chosen
    unhelpful = unhelpful_tiers(device.type)
    open_to = [candidate for candidate in plans if not candidate.unavailable_reason and candidate.tier not in unhelpful]
    if below is not None:
        order = list(Tier)
        most = weight_bytes(size, below)
        open_to = [
            candidate
            for candidate in open_to
            if order.index(candidate.tier) > order.index(below) and candidate.weight_bytes < most
        ]
        if not open_to:
            raise RenderError("oom", f"model {entry.name}: no tier below {below} can be had on {device}")
        return open_to[0]
    affordable = [candidate for candidate in open_to if budget is None or candidate.weight_bytes <= budget]
    if not affordable:
        assert budget is not None
        raise _over_budget(entry, min(open_to, key=lambda candidate: candidate.weight_bytes), budget)
    # estimates may be wrong and only the device knows: where nothing seems to fit, the leanest tier is tried
    return best(affordable) or min(affordable, key=lambda candidate: candidate.weight_bytes)


def size_or_nothing(entry: ModelEntry, catalogue: Catalogue, width: int) -> tuple[ModelSize, str]:
    """As `model_size`, but a missing file is a RenderError of this worker."""
    try:
        return model_size(entry, catalogue, width=width)
    except ConfigurationError as error:
        raise RenderError("model_invalid", error.detail) from None


def device_memory(device: torch.device) -> int:
    """Bytes that this process's tensors could take if the device held nothing yet."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device))
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _over_budget(entry: ModelEntry, candidate: Plan, budget: int) -> RenderError:
    return RenderError(
        "oom",
        f"model {entry.name} needs {candidate.weight_bytes / GIB:.1f} GiB at tier {candidate.tier} of the"
        f" {budget / GIB:.1f} GiB that model_memory_gib allows; raise it, or see `imagefarm plan {entry.name}`",
    )
