"""What the audit row of an image says: all that a re-render needs, and what this one took."""

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
"""How the model was held in memory and what makes it faster, of its facts."""


def image_audit(
    image: RenderedImage, job: ClaimedJob, pipeline: LoadedPipeline, worker: WorkerIdentity, timings: dict[str, float]
) -> dict[str, Any]:
    """The audit of one image: the engine's facts (device, dtype, step shapes, guards, times), and round them who, what and with
    which weights and libraries. `timings` in milliseconds.
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
    """The most memory this process ever held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_device_bytes() -> int | None:
    """The most device memory that tensors of this process ever took, in bytes; None where there is no CUDA."""
    torch = sys.modules.get("torch")  # whoever renders has loaded it
    if torch is None or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated())
