"""The members of the running set: jobs, and the slots that hold their images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scheduler.queue.claim import ClaimedJob
from scheduler.queue.retry import Failure
from worker.engine.results import RenderedImage
from worker.engine.timing import DeviceTimer
from worker.families.base import Embedding, Sample
from worker.inputs.input_images import Inputs
from worker.upscalers.tiles import TiledUpscale


@dataclass(slots=True, eq=False, repr=False)
class RunningJob:
    """A claimed job whose images are being rendered."""

    job: ClaimedJob
    embeddings: Mapping[str, Embedding]
    inputs: Inputs
    encoding: DeviceTimer
    """Milliseconds to prepare the job: embeddings (unless cached), noise, schedule, input image."""
    loras: list[dict[str, Any]]
    slots: list[Slot] = field(default_factory=list)
    failure: Failure | None = None

    @property
    def progress(self) -> tuple[int, int]:
        """(steps done, steps in total) of the job's slowest image."""
        behind = min((slot.sample for slot in self.slots if slot.image is None), key=lambda sample: sample.step, default=None)
        sample = behind or self.slots[0].sample
        return sample.step, sample.steps

    @property
    def done(self) -> bool:
        return all(slot.image is not None for slot in self.slots)

    @property
    def gpu_s(self) -> float:
        return self.encoding.seconds + sum(
            slot.seconds(slot.denoising) + slot.seconds(slot.decoding) + slot.upscale_s for slot in self.slots
        )


@dataclass(slots=True, eq=False, repr=False)
class Slot:
    """One image in the running set."""

    job: RunningJob
    index: int
    seed: int
    sample: Sample
    dtype: torch.dtype
    """The denoiser's dtype for this image."""
    lengths: tuple[int, ...]
    """Lengths in tokens of the image's parts in a forward pass; constant over all steps."""
    isolated: bool = False
    """Whether this is an isolated retry: it shares no pass and uses the safest dtype."""
    remarks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    step_shapes: list[dict[str, Any]] = field(default_factory=list)
    denoising: list[tuple[DeviceTimer, float]] = field(default_factory=list)
    decoding: list[tuple[DeviceTimer, float]] = field(default_factory=list)
    decode: dict[str, Any] = field(default_factory=dict)
    decode_not_finite: bool = False
    """Whether the latents were finite but the decoded image was not."""
    blank: NDArray[np.uint8] | None = None
    """A first result that was one plain colour."""
    upscale_s: float = 0.0
    upscaling: TiledUpscale | None = None
    """The image's upscale in progress."""
    image: RenderedImage | None = None

    @property
    def tokens(self) -> int:
        """The image's length in tokens in a forward pass."""
        return sum(self.lengths)

    @property
    def running(self) -> bool:
        return self.image is None and self.job.failure is None

    @property
    def waits_for_decoder(self) -> bool:
        """Whether the last step is done and the image is not decoded yet."""
        return self.running and self.sample.done and self.upscaling is None

    def seconds(self, timers: list[tuple[DeviceTimer, float]]) -> float:
        """This image's share of the passes in `timers`, in seconds."""
        return sum(timer.seconds * share for timer, share in timers)

    def host_seconds(self) -> float:
        """This image's share of the render thread's CPU time inside the model, which a plain call of the pipeline also spends."""
        encoding = self.job.encoding.host_s / len(self.job.slots)
        return encoding + sum(timer.host_s * share for timer, share in (*self.denoising, *self.decoding))

    def note_pass(self, line: dict[str, Any]) -> None:
        """Record the shape of a pass. Equal consecutive shapes are stored as one entry with their number of steps."""
        step = self.sample.step
        if self.step_shapes and {**self.step_shapes[-1], "steps": None} == {**line, "steps": None}:
            self.step_shapes[-1]["steps"][1] = step
        else:
            self.step_shapes.append({**line, "steps": [step, step]})

    def _subject(self) -> dict[str, Any] | None:
        placed = self.job.inputs.subject
        return None if placed is None else placed.facts() | {"tool": "text" if self.sample.inpaint is None else "inpaint"}

    def facts(self) -> dict[str, Any]:
        """The part of the audit that says how this image was rendered."""
        sample = self.sample
        sigmas = getattr(sample.scheduler, "sigmas", None)
        return {
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(sample.latents.device),
            "timesteps": [round(value, 6) for value in sample.timesteps.tolist()],
            "sigmas": None if sigmas is None else [round(value, 6) for value in sigmas.tolist()],
            "scheduler": type(sample.scheduler).__name__,
            "embedding_sha256": sample.prompt.digest,
            "encoded_together": sample.prompt.together,
            "negative_embedding_sha256": "" if sample.negative is None else sample.negative.digest,
            "loras": self.job.loras,
            "subject": self._subject(),
            "step_shapes": self.step_shapes,
            "decode": self.decode,
            "remarks": self.remarks,
            "peak_memory_bytes": torch.cuda.max_memory_allocated(sample.latents.device) if sample.latents.is_cuda else None,
            "host_ms": round(self.host_seconds() * 1000, 3),
            "encode_ms": round(self.job.encoding.seconds * 1000, 3),
            "denoise_ms": round(self.seconds(self.denoising) * 1000, 3),
            "decode_ms": round(self.seconds(self.decoding) * 1000, 3),
        }
