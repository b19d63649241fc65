"""What the engine returns: finished images and jobs, failed jobs, and the report of one step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.queue.claim import ClaimedJob
from scheduler.queue.retry import Failure
from worker.inputs.input_images import NOTHING, Inputs


@dataclass(frozen=True, slots=True)
class RenderedImage:
    """One finished image of a job, with what its audit row needs."""

    index: int
    """Index of the image in its job, from 0."""
    seed: int
    pixels: NDArray[np.uint8]
    """(height, width, 3), RGB."""
    facts: dict[str, Any]
    """dtype, device, sigmas and timesteps, step shapes, decode pass, remarks of the guards, times in ms, embedding digest."""
    warnings: list[str]
    """`blank`: one plain colour, also after an isolated retry. `tiled`: decoded in tiles because memory was short.
    `prompt_cut`: the prompt is longer than the model reads. `lora_partial`: weights of a LoRA have no place in the model."""


@dataclass(frozen=True, slots=True)
class RenderedJob:
    """A job whose images are all decoded. Work that needs no device, such as compositing a subject, is still to be done.
    `gpu_s` is the job's share of its passes, in seconds."""

    job: ClaimedJob
    images: list[RenderedImage]
    gpu_s: float
    inputs: Inputs = NOTHING


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A job that left the running set because of `failure`. Other jobs continue."""

    job: ClaimedJob
    failure: Failure


@dataclass(frozen=True, slots=True)
class Preview:
    """A preview: the image as it would be if the current prediction were exact."""

    index: int
    step: int
    """Steps done when the preview was taken."""
    pixels: NDArray[np.uint8]
    """(height, width, 3), RGB, `previews.MAX_SIDE` at most."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did."""

    progress: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Job id -> (steps done, steps in all), for every job still in the running set."""
    previews: dict[str, list[Preview]] = field(default_factory=dict)
    """Job id -> previews of its images, for jobs that asked for them."""
    rendered: list[RenderedJob] = field(default_factory=list)
    failed: list[FailedJob] = field(default_factory=list)
