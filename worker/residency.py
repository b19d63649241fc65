"""Which models a worker keeps loaded: the least recently used make room for a new one under a memory budget."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable

import torch

from imagefarm.catalogue import Catalogue, ModelEntry
from imagefarm.errors import RenderError
from imagefarm.logs import get_logger
from imagefarm.settings import Settings
from worker.device import find_device, pick_dtype
from worker.digests import WeightDigests
from worker.embeddings import EmbeddingCache
from worker.engine.passes import free_cached
from worker.engine.warm_up import warm_up
from worker.families import family_class
from worker.loading import LoadedPipeline, load_pipeline
from worker.model_files import find_files

log = get_logger(__name__)

FAILED_FOR_S = 30.0
"""A model that could not be loaded fails at once for so long, and is then tried again."""
SHARE_OF_GPU = 0.85
"""Of the device's memory: the rest is for what a pass needs besides the weights."""
SHARE_OF_RAM = 0.5

Load = Callable[[ModelEntry], LoadedPipeline]


class Residency:
    """The loaded pipelines of one worker. One thread gets and unloads; any may look at `names`."""

    def __init__(self, catalogue: Catalogue, settings: Settings, *, load: Load | None = None) -> None:
        self.catalogue = catalogue
        self.device = find_device(settings.device)
        self.is_budget_set = settings.memory_budget_gib > 0
        self.budget = int(settings.memory_budget_gib * 2**30) if self.is_budget_set else device_budget(self.device)
        self.embeddings = EmbeddingCache()
        self.load_s: dict[str, float] = {}
        """Seconds that each model last took to load, warm-up included."""
        self.evictions = 0
        self._digests = WeightDigests(settings.data_dir / "run" / "weight-digests.json")
        self._load = load or self._load_and_warm
        self._resident: OrderedDict[str, LoadedPipeline] = OrderedDict()
        # words only: the error itself would keep alive what was half loaded
        self._failed: dict[str, tuple[float, str, str]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Loaded models, the least recently used first."""
        return tuple(self._resident)

    @property
    def bytes(self) -> int:
        """Of all loaded weights."""
        return sum(pipeline.bytes for pipeline in self._resident.values())

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
            self._make_room(entry)
            pipeline = self._load(entry)
        except RenderError as error:
            self._failed[name] = (time.monotonic(), error.code, error.detail)
            raise
        self._failed.pop(name, None)
        self._resident[name] = pipeline
        self.load_s[name] = time.perf_counter() - started
        return pipeline

    def unload(self, name: str) -> bool:
        """Let a model go; return whether it was loaded."""
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

    def _make_room(self, entry: ModelEntry) -> None:
        needed = weight_bytes(entry, self.catalogue, self.device)
        if needed > self.budget and self.is_budget_set:
            raise RenderError(
                "oom",
                f"model {entry.name} needs {needed / 2**30:.1f} GiB of the {self.budget / 2**30:.1f} GiB that"
                f" memory_budget_gib allows; raise it, or see `imagefarm plan {entry.name}`",
            )
        # beyond a budget that is only a guess the device itself has the last word
        while self._resident and self.bytes + needed > self.budget:
            self.unload(next(iter(self._resident)))

    def _load_and_warm(self, entry: ModelEntry) -> LoadedPipeline:
        pipeline = load_pipeline(
            entry, self.catalogue, device=str(self.device), digests=self._digests, embeddings=self.embeddings
        )
        warm_up(pipeline)
        return pipeline


def weight_bytes(entry: ModelEntry, catalogue: Catalogue, device: torch.device) -> int:
    """Bytes that a model's weights take on the device, from the headers of its files."""
    dtype = pick_dtype(entry.dtype, device, family_class(entry.family).half)
    return sum(file.parameters for file in find_files(entry, catalogue).weights.values()) * dtype.itemsize


def device_budget(device: torch.device) -> int:
    """Bytes for weights on a device whose owner set no budget."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1] * SHARE_OF_GPU)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() * SHARE_OF_GPU)
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * SHARE_OF_RAM)
