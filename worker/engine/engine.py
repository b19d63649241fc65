"""The step engine: images of many jobs share forward passes. Each image joins and leaves at a step boundary."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from imagefarm.errors import RenderError
from imagefarm.logs import get_logger
from imagefarm.states import PriorityClass
from scheduler.queue.claim import ClaimedJob
from scheduler.queue.retry import Failure, FailureClass
from worker.engine.grouping import group
from worker.engine.passes import run_pass
from worker.engine.pixels import is_blank, to_uint8
from worker.engine.previews import Previews
from worker.engine.results import FailedJob, RenderedImage, RenderedJob, StepReport
from worker.engine.running_set import RunningJob, Slot
from worker.engine.timing import DeviceTimer, timed
from worker.failures import AttemptFailed, failure_of, is_out_of_memory
from worker.families.tensors import cast_to
from worker.inputs.input_images import NOTHING, Inputs
from worker.memory.device_cache import free_cached
from worker.memory.micro_batch_limits import MicroBatchLimits
from worker.memory.peak_memory import PeakMemoryMeter, headroom, meter_for
from worker.upscalers.tiles import TiledUpscale

if TYPE_CHECKING:
    from worker.models.loading import LoadedPipeline

log = get_logger(__name__)

DECODER_DTYPE = torch.float32
"""The dtype of a second decode, after the first one was not finite."""
MAX_DECODED_PIXELS = 2 * 1024 * 1024
"""Most pixels in one decoder pass. The decoder's activations are many times larger than the images."""
DEFAULT_TEXT_ENCODER_BATCH_SIZE = 8
"""Most new prompts in one pass of the text encoder. On a CPU, larger passes gained nothing and delayed the first job."""
LANCZOS = "lanczos"
UPSCALE_BUDGET_S = 0.03
"""Seconds for upscaling between two steps. At least one tile is always upscaled."""
DECODED_PART = 6
"""Between two steps the engine decodes at most one sixth of a full running set, plus what waits beyond one full set.
Images of a batch often end together; a job that joins at the next step must not wait for all of their decodes."""
STEPS_AHEAD = 2
"""Steps that may be queued on the device. One runs while the next is prepared, so new jobs can still join quickly."""


class StepEngine:
    """The running set of one loaded pipeline. Not thread-safe: one thread calls `add`, `step` and `drop`.

    `max_images` is the most images that share a forward pass. A job that renders alone gives the same bytes as its
    diffusers pipeline.
    """

    def __init__(
        self, pipeline: LoadedPipeline, *, max_images: int, text_encoder_batch_size: int = 0, tiled: bool = False
    ) -> None:
        self.pipeline = pipeline
        self.family = pipeline.family
        if self.family.device.type == "cuda":
            torch.cuda.set_device(self.family.device)  # per thread: another thread may have loaded the model
        self.max_images = max_images
        self.text_encoder_batch_size = text_encoder_batch_size or (
            DEFAULT_TEXT_ENCODER_BATCH_SIZE if self.family.device.type != "cpu" else 1
        )
        self.tiled = tiled
        """Whether images larger than one tile are always decoded in tiles."""
        self.meter: PeakMemoryMeter = meter_for(self.family.device)
        self.headroom = headroom(self.family.device)
        self._jobs: dict[str, RunningJob] = {}
        self._queued: deque[DeviceTimer] = deque(maxlen=STEPS_AHEAD)
        self._last_pass: DeviceTimer | None = None
        self._largest = (0, 0)
        self._longest = 0
        """Length in tokens of the longest image in the last step."""
        self._previews = Previews(self.family)

    @property
    def compat_key(self) -> str | None:
        """The compat key that new jobs must have; None when the running set is empty."""
        return next((running.job.compat_key for running in self._jobs.values()), None)

    @property
    def room(self) -> int:
        """Free places, in images. An image that only waits for the decoder takes no place, because it is in no further step."""
        return max(0, self.current_max_images - sum(1 for slot in self._slots() if not slot.waits_for_decoder))

    @property
    def current_max_images(self) -> int:
        """The most images that the running set may hold: what a pass at the longest member's length is known to hold."""
        return self._cap(self._longest) if self._longest else self.max_images

    @property
    def jobs(self) -> list[str]:
        """Ids of the jobs in the running set, oldest first."""
        return list(self._jobs)

    def add(self, job: ClaimedJob, inputs: Inputs = NOTHING) -> None:
        """Add a job to the running set; its first step is the next one. `inputs` are the images that the job starts from.

        Raises AttemptFailed (a RenderError with its failure) if this job cannot be rendered; other jobs are not affected.
        Raises ValueError if the job cannot share the running set.
        """
        if self.compat_key not in (None, job.compat_key):
            raise ValueError(f"job {job.id} ({job.compat_key}) cannot join a running set of {self.compat_key}")
        if job.id in self._jobs:
            raise ValueError(f"job {job.id} is already in the running set")
        try:
            self._jobs[job.id] = self._start(job, inputs)
        except Exception as error:
            failure = failure_of(error)
            if failure.code == "oom":
                free_cached(self.family.device)
            log.warning("job.start_failed", job=job.id, code=failure.code, exc_info=failure.kind is FailureClass.UNKNOWN)
            raise AttemptFailed(failure) from None

    def encode_ahead(self, jobs: Sequence[ClaimedJob]) -> None:
        """Encode the prompts of jobs that are about to be added, so that new prompts share passes of the encoder.

        This is an optimisation. Errors are only logged here, because `add` raises them again for the job that causes them.
        """
        pipeline, batch_size = self.pipeline, self.text_encoder_batch_size
        if batch_size < 2 or len(jobs) < 2:
            return
        try:
            if not self._jobs:
                pipeline.loras.use(jobs[0].recipe.loras)
            texts = [text for job in jobs for text in self.family.texts(job.recipe)]
            pipeline.embeddings.fill(self._scope(), texts, self.family.encode_many, batch_size=batch_size)
        except Exception as error:  # noqa: BLE001 - a prompt that cannot be encoded must not fail its neighbours
            log.warning("prompts.shared_encode_failed", jobs=len(jobs), error=str(error)[:200])
            free_cached(self.family.device)

    def drop(self, job_id: str) -> bool:
        """Remove a job at this step boundary (it was cancelled, for example); return whether it was present."""
        return self._jobs.pop(job_id, None) is not None

    def step(self) -> StepReport:
        """Advance every image by one step, then decode some of the finished images."""
        if len(self._queued) == STEPS_AHEAD:
            self._queued[0].wait()
        self._denoise([slot for slot in self._slots() if not slot.sample.done])
        self._run_upscale([slot for slot in self._slots() if slot.upscaling is not None])
        if self._last_pass is not None:
            self._queued.append(self._last_pass)
        self._finish(self._next_to_decode())
        return self._report()

    def _start(self, job: ClaimedJob, inputs: Inputs) -> RunningJob:
        recipe, family, pipeline = job.recipe, self.family, self.pipeline
        if not inputs.fit(recipe):
            raise RenderError("input_invalid", f"{', '.join(recipe.assets)}: {recipe.width}x{recipe.height} pixels are needed")
        if recipe.upscale is not None and recipe.upscale.model != LANCZOS:
            pipeline.upscalers.get(recipe.upscale.model)  # a missing upscaler is reported before the image is rendered
        if not self._jobs:
            pipeline.loras.use(recipe.loras)
        inputs = inputs.beginning(can_inpaint="inpaint" in pipeline.entry.features, cell=family.pipe.vae_scale_factor)
        with timed(family.device) as encoding:
            embeddings = pipeline.embeddings.get(self._scope(), family.texts(recipe), family.encode)
            samples = [
                family.start(
                    recipe,
                    recipe.seed_of(index),
                    embeddings,
                    dtype=family.dtype,
                    init_image=inputs.image,
                    mask=inputs.mask,
                )
                for index in range(job.count)
            ]
        running = RunningJob(job, embeddings, inputs, encoding, pipeline.loras.facts)
        warnings = ["prompt_cut"] if any(embedding.cut for embedding in embeddings.values()) else []
        warnings += pipeline.loras.warnings
        for index, sample in enumerate(samples):
            seed, lengths = recipe.seed_of(index), family.lengths(sample)
            running.slots.append(Slot(running, index, seed, sample, family.dtype, lengths, warnings=list(warnings)))
        return running

    def _scope(self) -> tuple[str, ...]:
        """What an embedding depends on besides the text."""
        return (self.pipeline.encoder_digest, *self.family.encoding, self.pipeline.loras.key)

    def _slots(self) -> list[Slot]:
        return [slot for running in self._jobs.values() for slot in running.slots if slot.running]

    def _denoise(self, slots: list[Slot]) -> None:
        self._longest = max(map(_tokens, slots), default=self._longest)
        passes = group(
            slots,
            key=lambda slot: (id(slot) if slot.isolated else None, slot.dtype, self.family.pass_key(slot.sample)),
            tokens=_tokens,
            cap=self._cap,
        )
        for members in passes:
            run_pass(
                members, self._forward, limits=self.pipeline.denoise_limits, size=members[0].tokens, last_resort=self._too_large
            )

    def _cap(self, tokens: int) -> int:
        return self.pipeline.denoise_limits.cap(tokens, self.max_images, free=self.headroom if self.meter.bounds else None)

    @contextmanager
    def _measured(self, limits: MicroBatchLimits, size: int, images: int) -> Iterator[None]:
        """Measure the peak memory of the enclosed pass until it is known. A failed pass is not measured."""
        if not limits.wants(size, images):
            yield
            return
        self.meter.begin()
        yield
        peak = self.meter.peak()
        if peak is not None:
            limits.measured(size, images, peak)

    def _forward(self, slots: list[Slot]) -> None:
        family, samples = self.family, [slot.sample for slot in slots]
        entries = sum(sample.entries for sample in samples)
        padded = [max(column) for column in zip(*(slot.lengths for slot in slots), strict=True)]
        with timed(family.device) as timer, self._measured(self.pipeline.denoise_limits, max(map(_tokens, slots)), len(slots)):
            if not slots[0].isolated:
                predictions = family.predict(samples)
            else:
                with self.pipeline.acceleration.disabled(), cast_to(family.denoiser, slots[0].dtype):
                    predictions = family.predict(samples)
        for place, (slot, prediction) in enumerate(zip(slots, predictions, strict=True)):
            slot.note_pass({"images": len(slots), "entries": entries, "slot": place, "padded": padded})
            slot.denoising.append((timer, slot.sample.entries / entries))
            self._previews.look(slot, prediction)
        with timed(family.device) as advancing:
            for slot, prediction in zip(slots, predictions, strict=True):
                slot.denoising.append((advancing, 1 / len(slots)))
                self._advance(slot, prediction)
        self._last_pass = advancing

    def _advance(self, slot: Slot, prediction: torch.Tensor) -> None:
        try:
            self.family.advance(slot.sample, prediction)
        except Exception as error:
            log.warning("image.scheduler_failed", job=slot.job.job.id, exc_info=True)
            slot.job.failure = failure_of(error)
            return
        # a sum is cheaper than isfinite, and finite latents are far too small to overflow it
        slot.sample.finite_check = slot.sample.finite_check + slot.sample.latents.sum(dtype=torch.float32)

    def _too_large(self, slots: list[Slot]) -> None:
        """The last resort for one image that ran out of memory on its own."""
        (slot,) = slots
        if slot.blank is None:
            raise AttemptFailed(Failure(FailureClass.RESOURCE, "oom", self._what_would_fit(slot)))
        slot.remarks.append("the isolated retry ran out of memory: the first picture is kept")
        self._deliver(slot, slot.blank, "blank")

    def _what_would_fit(self, slot: Slot) -> str:
        sample = slot.sample
        width, height = self._largest
        fits = f"up to {width}x{height} was rendered here" if width else f"try {sample.width // 2}x{sample.height // 2}"
        return (
            f"{sample.width}x{sample.height} alone ran out of memory on {self.family.device} beside the"
            f" {self.pipeline.bytes / 2**30:.1f} GiB of {self.pipeline.name} at tier {self.pipeline.tier}; {fits}"
        )

    def _next_to_decode(self) -> list[Slot]:
        """The next images to decode: interactive jobs first, then in order of arrival."""
        waiting = [slot for slot in self._slots() if slot.waits_for_decoder]
        waiting.sort(key=lambda slot: slot.job.job.priority_class != PriorityClass.INTERACTIVE)
        return waiting[: max(ceil(self.max_images / DECODED_PART), len(waiting) - self.max_images)]

    def _finish(self, slots: list[Slot]) -> None:
        if not slots:
            return
        latents_finite = torch.isfinite(torch.stack([slot.sample.finite_check for slot in slots])).tolist()
        for slot, finite in zip(slots, latents_finite, strict=True):
            if not finite:
                self._retry_isolated(slot, "latents were not finite")
        passes = group(
            [slot for slot, finite in zip(slots, latents_finite, strict=True) if finite],
            key=lambda slot: slot.sample.latents.shape,
            tokens=_pixels,
            cap=self._decode_cap,
        )
        for members in passes:
            size, limits = _pixels(members[0]), self.pipeline.decode_limits
            if self._begins_in_tiles(members[0]) or limits.fails_alone(size):
                run_pass(members, self._decode_in_tiles, limits=limits, size=size)
            else:
                run_pass(members, self._decode, limits=limits, size=size, last_resort=self._decode_in_tiles)
        for slot in slots:
            if slot.running and slot.decode_not_finite:
                run_pass([slot], self._decode_safely, limits=self.pipeline.decode_limits, size=_pixels(slot))

    def _decode_cap(self, pixels: int) -> int:
        limits = self.pipeline.decode_limits
        if self.tiled or limits.fails_alone(pixels):
            return 1
        free = self.headroom if self.meter.bounds else None
        return limits.cap(pixels, min(self.max_images, max(1, MAX_DECODED_PIXELS // pixels)), free=free)

    def _begins_in_tiles(self, slot: Slot) -> bool:
        vae: Any = self.family.vae
        return self.tiled and max(slot.sample.latents.shape[-2:]) > vae.tile_latent_min_size

    def _decode(self, slots: list[Slot], **facts: Any) -> None:
        limits = MicroBatchLimits() if facts.get("tiled") else self.pipeline.decode_limits
        measured = self._measured(limits, _pixels(slots[0]), len(slots))
        with timed(self.family.device) as timer, measured, torch.inference_mode():
            decoded = self.family.decode(torch.cat([slot.sample.latents for slot in slots]))
            # checked before the conversion to uint8, which turns NaN into black silently
            finite = torch.isfinite(decoded).flatten(1).all(dim=1)
            pixels = to_uint8(decoded)
        pictures, is_finite = pixels.cpu().numpy(), finite.tolist()
        dtype = str(decoded.dtype).removeprefix("torch.")
        for place, slot in enumerate(slots):
            slot.decoding.append((timer, 1 / len(slots)))
            slot.decode = {"images": len(slots), "slot": place, "dtype": dtype, **facts}
            slot.decode_not_finite = not is_finite[place]
            if is_finite[place]:
                self._accept(slot, pictures[place])

    def _decode_safely(self, slots: list[Slot]) -> None:
        """The latents are finite but the image is not: run only the decoder again, in float32."""
        (slot,) = slots
        slot.remarks.append(f"decoded again in float32: {slot.decode['dtype']} gave numbers that are not finite")
        with cast_to(self.family.vae, DECODER_DTYPE):
            self._decode(slots)
        if slot.decode_not_finite:
            slot.decode_not_finite = False
            self._retry_isolated(slot, "the decoder gave numbers that are not finite")

    def _decode_in_tiles(self, slots: list[Slot]) -> None:
        vae: Any = self.family.vae
        if self._begins_in_tiles(slots[0]):
            slots[0].remarks.append("decoded in tiles, as vae_tiling asks")
        else:
            self.pipeline.decode_limits.learn_alone(_pixels(slots[0]))
            slots[0].remarks.append("decoded in tiles: the whole picture ran out of memory")
        slots[0].warnings.append("tiled")
        vae.enable_tiling()
        try:
            self._decode(slots, tiled=True)
        except Exception as error:
            if is_out_of_memory(error):
                raise AttemptFailed(Failure(FailureClass.RESOURCE, "oom", self._what_would_fit(slots[0]))) from None
            raise
        finally:
            vae.disable_tiling()

    def _accept(self, slot: Slot, pixels: NDArray[np.uint8]) -> None:
        # a subject is composited later, onto a background that may well be one plain colour
        if slot.job.inputs.subject is not None or not is_blank(pixels):
            self._deliver(slot, pixels)
        elif slot.isolated:
            self._deliver(slot, pixels, "blank")
        else:
            slot.blank = pixels
            self._retry_isolated(slot, "the picture is one plain colour")

    def _deliver(self, slot: Slot, pixels: NDArray[np.uint8], *warnings: str) -> None:
        slot.warnings.extend(warnings)
        self._largest = max(self._largest, (slot.sample.width, slot.sample.height), key=lambda size: size[0] * size[1])
        upscale = slot.job.job.recipe.upscale
        if upscale is None or upscale.model == LANCZOS:
            slot.image = RenderedImage(slot.index, slot.seed, pixels, slot.facts(), slot.warnings)
        else:
            slot.upscaling = TiledUpscale(pixels, self.pipeline.upscalers.get(upscale.model))

    def _run_upscale(self, slots: list[Slot]) -> None:
        """Upscale some tiles of the image that has waited longest, within the time budget, so that the next step starts soon."""
        for slot in slots[:1]:
            upscaling = slot.upscaling
            assert upscaling is not None
            try:
                done = upscaling.advance(UPSCALE_BUDGET_S)
            except Exception as error:  # noqa: BLE001 - as in add: this job's failure, not the worker's
                slot.job.failure = failure_of(error)
                return
            if done:
                facts = slot.facts() | {"upscaler": upscaling.facts}
                slot.image = RenderedImage(slot.index, slot.seed, upscaling.result, facts, slot.warnings)
                slot.upscale_s, slot.upscaling = upscaling.seconds, None

    def _retry_isolated(self, slot: Slot, why: str) -> None:
        """Render the image again from its seed, isolated and in the safest dtype. After a second failure the job fails."""
        safest = self.pipeline.safest_dtype
        if slot.isolated:
            slot.job.failure = Failure(
                FailureClass.MODEL, "nan_output", f"{why}, twice; the second time alone in {safest}".replace("torch.", "")
            )
            return
        log.warning("image.retried", job=slot.job.job.id, index=slot.index, why=why)
        slot.remarks.append(f"made again alone in {safest}: {why}".replace("torch.", ""))
        slot.isolated, slot.dtype, slot.step_shapes = True, safest, []
        try:
            job = slot.job
            slot.sample = self.family.start(
                job.job.recipe, slot.seed, job.embeddings, dtype=safest, init_image=job.inputs.image, mask=job.inputs.mask
            )
        except Exception as error:  # noqa: BLE001 - as in add: this job's failure, not the worker's
            slot.job.failure = failure_of(error)

    def _report(self) -> StepReport:
        report = StepReport(previews=self._previews.take())
        for job_id, running in list(self._jobs.items()):
            if running.failure is not None:
                report.failed.append(FailedJob(running.job, running.failure))
            elif running.done:
                images = [slot.image for slot in running.slots if slot.image is not None]
                report.rendered.append(RenderedJob(running.job, images, running.gpu_s, running.inputs))
            else:
                report.progress[job_id] = running.progress
                continue
            del self._jobs[job_id]
        return report


def _tokens(slot: Slot) -> int:
    return slot.tokens


def _pixels(slot: Slot) -> int:
    return slot.sample.width * slot.sample.height
