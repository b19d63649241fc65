"""Which models a worker keeps loaded: under a memory budget, the least recently used are evicted for a new one."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from imagefarm.catalogue import Catalogue
from imagefarm.errors import RenderError
from imagefarm.logs import get_logger
from imagefarm.model_entry import ModelEntry
from imagefarm.settings import Settings
from worker.families import family_class
from worker.memory.device_cache import free_cached
from worker.memory.planner import Plan, Tier
from worker.memory.select_tier import AUTO, device_memory, select_tier
from worker.models.acceleration import AccelerationSettings
from worker.models.device import find_device, pick_dtype
from worker.models.embeddings import EmbeddingCache
from worker.models.loading import LoadedPipeline, load_pipeline
from worker.models.warm_up import warm_up
from worker.weights.digests import WeightDigests

log = get_logger(__name__)

FAILED_FOR_S = 30.0
"""Seconds during which a model that failed to load fails again at once, before it is retried."""
SHARE_OF_GPU = 0.85
"""Share of the device's memory for weights; the rest is for passes."""
SHARE_OF_RAM = 0.5

Load = Callable[[ModelEntry, Plan], LoadedPipeline]


class Residency:
    """The loaded pipelines of one worker. One thread gets and unloads; any thread may read `names`."""

    def __init__(self, catalogue: Catalogue, settings: Settings, *, load: Load | None = None) -> None:
        self.catalogue = catalogue
        self.device = find_device(settings.device)
        self.is_budget_set = settings.model_memory_gib > 0
        self.budget = int(settings.model_memory_gib * 2**30) if self.is_budget_set else device_budget(self.device)
        self.embeddings = EmbeddingCache()
        self.load_s: dict[str, float] = {}
        """Seconds that each model last took to load, warm-up included."""
        self.loads = 0
        self.evictions = 0
        self.swaps = 0
        """Number of loads that evicted another model."""
        self.tier = settings.tier
        self.tiled = settings.vae_tiling
        self.max_images = settings.max_running_set_images
        self._digests = WeightDigests(settings.data_dir / "run" / "weight-digests.json")
        self._acceleration_settings = AccelerationSettings.of(settings)
        self._load = load or self._load_and_warm
        self._below: dict[str, Tier] = {}
        """Tiers that ran out of memory with a single image, by model: the next load is one tier lower."""
        self._resident: OrderedDict[str, LoadedPipeline] = OrderedDict()
        # text only: the exception would keep the half-loaded model alive
        self._failed: dict[str, tuple[float, str, str]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Loaded models, the least recently used first."""
        return tuple(self._resident)

    @property
    def bytes(self) -> int:
        """Bytes of all loaded weights, upscalers included."""
        return sum(pipeline.bytes + pipeline.upscalers.bytes for pipeline in self._resident.values())

    def facts(self) -> dict[str, Any]:
        """Facts for pages and metrics. Any thread may call it."""
        counts = self.embeddings.counts
        return {
            "models": {
                name: {
                    "tier": str(pipeline.tier),
                    "weights": str(pipeline.tier.weights),
                    "bytes": pipeline.bytes,
                    "load_s": round(self.load_s.get(name, 0.0), 2),
                }
                for name, pipeline in list(self._resident.items())
            },
            "budget_bytes": self.budget,
            "loads": self.loads,
            "swaps": self.swaps,
            "evictions": self.evictions,
            "embeddings": {
                "bytes": self.embeddings.nbytes,
                "hits": counts.hits,
                "encoded": counts.encoded,
                "evicted": counts.evicted,
            },
        }

    def get(self, name: str) -> LoadedPipeline:
        """Return the pipeline of a model, loading it if necessary and evicting others if the budget requires it.

        An evicted pipeline frees its memory once the caller drops it. Raises RenderError: "model_invalid", "oom", or for a while
        after a failed load the same error again.
        """
        entry = self.catalogue.get(name)
        name = entry.name
        if name in self._resident:
            self._resident.move_to_end(name)
            return self._resident[name]
        failed_at, code, detail = self._failed.get(name, (0.0, "", ""))
        if code and time.monotonic() < failed_at + FAILED_FOR_S:
            raise RenderError(code, detail)
        started = time.perf_counter()
        try:
            plan = self.plan(entry)
            self._make_room(entry, plan)
            pipeline = self._load(entry, plan)
        except RenderError as error:
            self._failed[name] = (time.monotonic(), error.code, error.detail)
            raise
        self._failed.pop(name, None)
        self._resident[name] = pipeline
        self.loads += 1
        self.load_s[name] = time.perf_counter() - started
        return pipeline

    def plan(self, entry: ModelEntry) -> Plan:
        """The plan by which the model would be loaded now. Raises RenderError as `select_tier` does."""
        return select_tier(
            entry,
            self.catalogue,
            self.device,
            width=pick_dtype(entry.dtype, self.device, family_class(entry.family).half).itemsize,
            wanted=self.tier,
            memory=device_memory(self.device),
            budget=self.budget if self.is_budget_set else None,
            below=self._below.get(entry.name),
            max_images=self.max_images,
            tiled=self.tiled,
        )

    def step_down(self, name: str) -> Tier | None:
        """After a single image ran out of memory: unload the model and return the lower tier of its next load.

        Returns None if there is no lower tier, or if the operator named the tier. The model stays at the lower tier until it is
        evicted.
        """
        entry = self.catalogue.get(name)
        loaded = self._resident.get(entry.name)
        if loaded is None or self.tier != AUTO or entry.tier != AUTO:
            return None
        before = self._below.get(entry.name)
        self._below[entry.name] = loaded.tier
        try:
            lower = self.plan(entry).tier
        except RenderError:
            if before is None:
                del self._below[entry.name]
            else:
                self._below[entry.name] = before
            return None
        del loaded
        self._let_go(entry.name)
        log.warning("one tier down", model=entry.name, tier=str(lower))
        return lower

    def unload(self, name: str) -> bool:
        """Unload a model; return whether it was loaded."""
        self._below.pop(name, None)
        return self._let_go(name)

    def _let_go(self, name: str) -> bool:
        pipeline = self._resident.pop(name, None)
        if pipeline is None:
            return False
        self.evictions += 1
        if not any(other.encoder_digest == pipeline.encoder_digest for other in self._resident.values()):
            self.embeddings.forget((pipeline.encoder_digest,))
        log.info("model unloaded", model=name, bytes=pipeline.bytes)
        del pipeline
        free_cached(self.device)
        return True

    def _make_room(self, entry: ModelEntry, plan: Plan) -> None:
        # a budget that is only estimated does not refuse a load; only the device knows
        leaves = self._resident and self.bytes + plan.weight_bytes > self.budget
        self.swaps += bool(leaves)
        while self._resident and self.bytes + plan.weight_bytes > self.budget:
            self.unload(next(iter(self._resident)))

    def _load_and_warm(self, entry: ModelEntry, plan: Plan) -> LoadedPipeline:
        pipeline = load_pipeline(
            entry,
            self.catalogue,
            device=str(self.device),
            tier=plan.tier,
            acceleration_settings=self._acceleration_settings,
            digests=self._digests,
            embeddings=self.embeddings,
        )
        warm_up(pipeline)
        return pipeline


def device_budget(device: torch.device) -> int:
    """Bytes for weights on a device for which the operator set no budget."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1] * SHARE_OF_GPU)
    return int(device_memory(device) * (SHARE_OF_GPU if device.type == "mps" else SHARE_OF_RAM))
