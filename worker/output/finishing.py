"""Finishing beside the device: encode, hash, store, commit, publish. The pool is bounded; when it is full, rendering waits."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from imagefarm.errors import LeaseLost
from imagefarm.imaging.encode import encode_picture
from imagefarm.imaging.formats import extension
from imagefarm.imaging.labels import COMPOSED, MADE
from imagefarm.imaging.metadata import text_chunks
from imagefarm.imaging.png import pixel_sha256
from imagefarm.logs import get_logger
from imagefarm.output_store import OutputStore, image_key
from imagefarm.settings import Settings
from imagefarm.store import Store
from imagefarm.store.models import Tenant
from scheduler.queue import finish
from scheduler.queue.claim import ClaimedJob
from scheduler.queue.finish import FinishedChannel, FinishedImage
from scheduler.queue.retry import Failure, FailureClass
from scheduler.queue.workers import WorkerIdentity
from worker.inputs.input_images import Inputs
from worker.leases.leased_jobs import LeasedJobs
from worker.output.audit import image_audit
from worker.output.backpressure import InFlightLimit
from worker.output.batch_options_cache import PostprocessOptions, PostprocessOptionsCache
from worker.output.channels import Box, ChannelPicture, make_channel
from worker.output.compositing import composite
from worker.output.scores import measure

if TYPE_CHECKING:
    from worker.engine.results import RenderedImage, RenderedJob
    from worker.models.loading import LoadedPipeline

log = get_logger(__name__)

BLANK = "blank"
"""The engine's warning for an image of one plain colour, also after its isolated retry."""
EVERY_TENANT = "*"
JOBS_PER_THREAD = 2
"""Jobs in flight per thread in any case: one being processed and one waiting, so that a thread is never idle."""
MAX_WAITING_BYTES = 256 * 2**20
"""Further images in flight, so that a running set that ends together does not delay the next one."""


class Finishing:
    """Ends jobs: rendered jobs with their images and rows, failed jobs with their reason. Each ends in one fenced transaction;
    an attempt that lost its job leaves no file behind.
    """

    def __init__(
        self,
        store: Store,
        outputs: OutputStore,
        settings: Settings,
        worker: WorkerIdentity,
        leased_jobs: LeasedJobs,
    ) -> None:
        self.store = store
        self.outputs = outputs
        self.settings = settings
        self.worker = worker
        self.leased_jobs = leased_jobs
        self.options_cache = PostprocessOptionsCache(store, settings)
        self.failures = 0
        """Jobs whose end could not be committed. Their leases expire and they are rendered again."""
        self.images = 0
        self._recent: deque[float] = deque(maxlen=10_000)
        self._pool = ThreadPoolExecutor(settings.postprocess_threads, thread_name_prefix="finishing")
        min_jobs = JOBS_PER_THREAD * settings.postprocess_threads
        self._in_flight = InFlightLimit(
            min_jobs=min_jobs, max_jobs=min_jobs + settings.max_running_set_images, max_bytes=MAX_WAITING_BYTES
        )

    def submit(self, rendered: RenderedJob, pipeline: LoadedPipeline) -> None:
        """Finish a rendered job. Blocks while the jobs in flight are at their limit."""
        nbytes = sum(image.pixels.nbytes for image in rendered.images)
        self._in_flight.acquire(nbytes)
        self.leased_jobs.note_finishing(rendered.job.id)
        self._start(nbytes, self._succeed, rendered, pipeline)

    def fail(self, job: ClaimedJob, failure: Failure) -> None:
        """End a failed attempt; blocks as `submit` does."""
        self._in_flight.acquire(0)
        self.leased_jobs.note_finishing(job.id)
        self._start(0, self._fail, job, failure)

    def images_per_minute(self) -> int:
        """Images committed in the last minute."""
        since = time.monotonic() - 60
        return sum(1 for at in list(self._recent) if at > since)

    def close(self) -> None:
        """Wait for all jobs in flight, then end the threads."""
        self._pool.shutdown(wait=True)

    def _start(self, nbytes: int, work, *args) -> None:  # type: ignore[no-untyped-def]
        future = self._pool.submit(work, *args)
        future.add_done_callback(lambda _: self._in_flight.release(nbytes))

    def _succeed(self, rendered: RenderedJob, pipeline: LoadedPipeline) -> None:
        job, written, committing = rendered.job, list[str](), False
        try:
            if (failure := self._refused(rendered)) is not None:
                self._fail(job, failure)
                return
            options = self.options_cache.get(job.batch_id)
            remarks = {f"image {image.index}: {text}" for image in rendered.images for text in image.warnings}
            images = [
                self._keep(image, rendered, pipeline, options=options, written=written, remarks=remarks)
                for image in rendered.images
            ]
            work = pipeline.entry.work(job.recipe, job.count)
            committing = True
            ids = finish.succeed(
                self.store,
                job,
                images,
                actual_s=rendered.gpu_s,
                work=work,
                warnings=sorted(remarks),
                on_commit=options.on_commit,
            )
        except LeaseLost as error:
            self._discard(written)
            log.info("finishing.lease_lost", job=job.id, attempt=job.attempt, detail=error.detail)
        except SQLAlchemyError as error:
            # the commit may have happened: the files stay until the orphan collection can check
            self.failures += 1
            log.error("finishing.not_committed", job=job.id, attempt=job.attempt, error=str(error)[:300], failures=self.failures)
        except OSError as error:
            self._discard([] if committing else written)
            detail = f"the picture could not be stored: {error.strerror or error}"
            log.warning("finishing.storage", job=job.id, attempt=job.attempt, error=str(error))
            self._fail(job, Failure(FailureClass.INFRASTRUCTURE, "storage", detail))
        except Exception as error:
            # after a commit was tried, only a lost lease proves that it did not happen; the orphan collection decides the rest
            self._discard([] if committing else written)
            log.exception("finishing.broken", job=job.id, attempt=job.attempt)
            self._fail(job, Failure(FailureClass.UNKNOWN, "finishing_error", f"{type(error).__name__}: {error}"[:500]))
        else:
            self.images += len(ids)
            self._recent.extend([time.monotonic()] * len(ids))
        finally:
            self.leased_jobs.remove(job)

    def _refused(self, rendered: RenderedJob) -> Failure | None:
        """Why a rendered job fails: an image is blank, and its tenant does not accept blank images."""
        blank = [image.index for image in rendered.images if BLANK in image.warnings]
        wanted_by = self.settings.fail_blank_for_tenants
        if not blank or not wanted_by:
            return None
        with self.store.read() as session:
            tenant = session.scalar(select(Tenant.name).where(Tenant.id == rendered.job.tenant_id))
        if EVERY_TENANT not in wanted_by and tenant not in wanted_by:
            return None
        which = f"image{'s' * (len(blank) > 1)} {', '.join(map(str, blank))}"
        detail = (
            f"{which}: one plain colour, and again when made alone at the safest dtype; change the prompt or the seed, or ask the"
            " operator to keep such pictures (fail_blank_for_tenants)"
        )
        return Failure(FailureClass.MODEL, "blank_output", detail)

    def _keep(
        self,
        image: RenderedImage,
        rendered: RenderedJob,
        pipeline: LoadedPipeline,
        *,
        options: PostprocessOptions,
        written: list[str],
        remarks: set[str],
    ) -> FinishedImage:
        """Store an image and its channel files. Keys are added to `written`, notes for users to `remarks`."""
        job, recipe = rendered.job, rendered.job.recipe
        began = time.perf_counter()
        pixels = np.ascontiguousarray(composite(image.pixels, recipe, rendered.inputs))
        height, width, _ = pixels.shape
        texts = text_chunks(job.id, image.index, recipe, image.seed, pipeline.digest, recipe_hash=job.recipe_hash)
        source = MADE if recipe.subject is None else COMPOSED
        data = encode_picture(pixels, texts, recipe.format, recipe.quality, source=source)
        encoded = time.perf_counter()
        key = image_key(job.id, image.index, job.attempt, extension(recipe.format))
        written.append(key)
        self.outputs.write(key, data)
        stored = time.perf_counter()
        scores = None if options.on_commit is None else measure(pixels, rendered.inputs.subject)
        measured = time.perf_counter()
        channels = []
        for channel in options.channels:
            made = make_channel(pixels, channel, texts, subject=_box(rendered.inputs, width), source=source)
            if not made.fits:
                remarks.add(
                    f"image {image.index}: {len(made.data)} bytes for channel {channel.name}, whose limit is {channel.max_bytes}"
                )
            channels.append(
                self._keep_channel(
                    made, image_key(job.id, image.index, job.attempt, extension(channel.format), channel.name), written
                )
            )
        leased = self.leased_jobs.get(job.id)
        claimed_ms = 0.0 if leased is None else 1000 * (time.monotonic() - leased.claimed_at)
        timings = {"encode": 1000 * (encoded - began), "store": 1000 * (stored - encoded), "claim_to_stored": claimed_ms}
        if scores is not None:
            timings["measure"] = 1000 * (measured - stored)
        if channels:
            timings["channels"] = 1000 * (time.perf_counter() - measured)
        return FinishedImage(
            index=image.index,
            seed=image.seed,
            storage_key=key,
            format=recipe.format,
            width=width,
            height=height,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            pixel_sha256=pixel_sha256(width, height, pixels.data),
            ms=claimed_ms,
            audit=image_audit(image, job, pipeline, self.worker, timings),
            scores=scores,
            channels=tuple(channels),
        )

    def _keep_channel(self, made: ChannelPicture, key: str, written: list[str]) -> FinishedChannel:
        written.append(key)
        self.outputs.write(key, made.data)
        return FinishedChannel(
            channel=made.channel.name,
            storage_key=key,
            format=made.channel.format,
            width=made.channel.width,
            height=made.channel.height,
            bytes=len(made.data),
            sha256=hashlib.sha256(made.data).hexdigest(),
        )

    def _fail(self, job: ClaimedJob, failure: Failure) -> None:
        try:
            finish.fail(self.store, job, failure, self.settings)
        except SQLAlchemyError as error:
            self.failures += 1
            log.error("finishing.not_failed", job=job.id, attempt=job.attempt, error=str(error)[:300], failures=self.failures)
        finally:
            self.leased_jobs.remove(job)

    def _discard(self, keys: list[str]) -> None:
        for key in keys:
            try:
                self.outputs.delete(key)
            except OSError as error:
                self.failures += 1
                log.warning("finishing.not_deleted", key=key, error=str(error))


def _box(inputs: Inputs, width: int) -> Box | None:
    """Where product mode placed its subject in an image of this width."""
    if inputs.subject is None:
        return None
    cutout, left, top = inputs.subject.at(width // inputs.subject.width)
    return left, top, cutout.alpha.shape[1], cutout.alpha.shape[0]
