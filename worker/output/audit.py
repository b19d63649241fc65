"""The audit row of an image: what a re-render needs, and what this render took."""

from __future__ import annotations

import resource
import sys
from typing import TYPE_CHECKING, Any

from scheduler.queue.claim import ClaimedJob
from scheduler.queue.workers import WorkerIdentity

if TYPE_CHECKING:
    from worker.engine.results import RenderedImage
    from worker.models.loading import LoadedPipeline

HELD = ("tier", "weights", "fidelity", "acceleration")
"""The facts that say how the model was held in memory and what accelerated it."""


def image_audit(
    image: RenderedImage, job: ClaimedJob, pipeline: LoadedPipeline, worker: WorkerIdentity, timings: dict[str, float]
) -> dict[str, Any]:
    """The audit of one image: the engine's facts (device, dtype, step shapes, guards, times) together with the job, the worker,
    the weights and the library versions. `timings` are in milliseconds.
    """
    return {
        **image.facts,
        "recipe_hash": job.recipe_hash,
        "seed": str(image.seed),
        "model": {
            "name": pipeline.name,
            "source": pipeline.entry.source,
            "revision": pipeline.entry.revision or pipeline.facts.get("revision", ""),
            "digest": pipeline.digest,
            **{name: pipeline.facts[name] for name in HELD if name in pipeline.facts},
        },
        "versions": worker.facts["versions"],
        "worker": {"id": worker.id, "name": worker.name, "host": worker.host},
        "attempt": job.attempt,
        "timings_ms": {name: round(value, 2) for name, value in timings.items()},
        "peak_rss_bytes": peak_rss_bytes(),
        "peak_device_bytes": peak_device_bytes(),
    }


def peak_rss_bytes() -> int:
    """The peak resident size of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_device_bytes() -> int | None:
    """The peak device memory of this process's tensors, in bytes; None without CUDA."""
    torch = sys.modules.get("torch")  # a process that rendered has imported it
    if torch is None or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated())
