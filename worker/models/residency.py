"""Which models a worker keeps loaded: the least recently used make room for a new one under a memory budget."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from imagefarm.catalogue import Catalogue, ModelEntry
from imagefarm.errors import RenderError
from imagefarm.logs import get_logger
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
"""A model that could not be loaded fails at once for so long, and is then tried again."""
SHARE_OF_GPU = 0.85
"""Of the device's memory: the rest is for what a pass needs besides the weights."""
SHARE_OF_RAM = 0.5

Load = Callable[[ModelEntry, Plan], LoadedPipeline]


class Residency:
    """The loaded pipelines of one worker. One thread gets and unloads; any may look at `names`."""

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
        """Loads that made another model leave."""
        self.tier = settings.tier
        self.tiled = settings.vae_tiling
        self.max_images = settings.max_running_set_images
        self._digests = WeightDigests(settings.data_dir / "run" / "weight-digests.json")
        self._acceleration_settings = AccelerationSettings.of(settings)
        self._load = load or self._load_and_warm
        self._below: dict[str, Tier] = {}
        """Tiers that ran out of memory with a single image, by model: the next load is one lower."""
        self._resident: OrderedDict[str, LoadedPipeline] = OrderedDict()
        # words only: the error itself would keep alive what was half loaded
        self._failed: dict[str, tuple[float, str, str]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Loaded models, the least recently used first."""
        return tuple(self._resident)

    @property
    def bytes(self) -> int:
        """Of all loaded weights, those of upscalers included."""
        return sum(pipeline.bytes + pipeline.upscalers.bytes for pipeline in self._resident.values())

    def facts(self) -> dict[str, Any]:
        """What pages and metrics tell of it. For any thread."""
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
        """Return the pipeline of a model, loaded if need be; others leave if the budget asks for it.

        A pipeline that leaves frees its memory once the caller holds it no more. Raises RenderError: "model_invalid", "oom",
        or the same error again for a while after a load that failed.
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
        """How the model would be loaded now. Raises RenderError as `select_tier` does."""
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
        """A single image ran out of memory: have the model's next load take one tier less memory; return that tier.

        None if there is no lower one, or if the model is where it was put by name. The model leaves memory here; until it
        leaves again, it stays at the lower tier.
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
        """Let a model go; return whether it was loaded."""
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
        # beyond a budget that is only a guess the device itself has the last word
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
    """Bytes for weights on a device whose owner set no budget."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1] * SHARE_OF_GPU)
    return int(device_memory(device) * (SHARE_OF_GPU if device.type == "mps" else SHARE_OF_RAM))
