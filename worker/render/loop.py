"""The render slice: claim, join the running set, step, remove finished jobs, until no work is left or the slice is over."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from imagefarm.errors import RenderError
from imagefarm.logs import get_logger
from imagefarm.states import WorkerState
from scheduler.queue import finish
from scheduler.queue.claim import ClaimedJob, has_work
from scheduler.queue.retry import Failure, FailureClass
from worker.fake_device import FAKE, FakeEngine
from worker.inputs.input_prefetch import InputPrefetcher
from worker.process.step_deadline import MAX_SLICES
from worker.render.claim_prefetch import ClaimPrefetcher, RunningSetCapacity
from worker.render.context import WorkerContext

if TYPE_CHECKING:
    from worker.engine.engine import StepEngine
    from worker.models.loading import LoadedPipeline

log = get_logger(__name__)

LINGER_S = 0.6
"""Seconds that a slice which had work waits for more before it ends. It is longer than the interval between two tickets of a
lane (see scheduler.tickets), so a job whose ticket was suppressed is still seen at once. A slice that found nothing ends
at once, because its ticket was a duplicate."""
SUSPECT_PAUSE_S = 0.01
"""Poll interval while a previously crashed job waits until all other images are stored, in seconds."""
ENDING_STEPS = 2
"""Images with this few steps left count as free places, because the next claim returns about when they leave."""
BROKEN_FOR_S = 30.0
"""Seconds during which a model that failed to load is not tried again; its jobs fail at once meanwhile."""


class RenderLoop:
    """The running set of this worker's child and how it is filled. Lives as long as the child; one thread uses it."""

    def __init__(self, context: WorkerContext) -> None:
        self.context = context
        self.claim_prefetcher = ClaimPrefetcher(context)
        self.input_prefetcher = InputPrefetcher(context.store, context.outputs)
        self.engine: StepEngine | None = None
        self.pipeline: LoadedPipeline | None = None
        self.waiting: deque[ClaimedJob] = deque()
        """Claimed jobs that are not in the running set yet, because it is full or must empty first."""
        self.turn = threading.RLock()
        """Held while pipelines are used: by a slice, or by operator commands between slices."""
        self.device_lost = False
        """Whether the device raised an error that only a new process clears."""
        self._broken: dict[str, tuple[float, Failure]] = {}
        self._to_lower: dict[str, Failure] = {}
        """Waiting jobs, by id, that ran out of memory alone, with the error: their model is loaded one tier lower first."""
        self._lowered: deque[tuple[str, int]] = deque(maxlen=256)
        """Attempts (job, number) that already went one tier lower; each may do so once."""

    def run_slice(self, lane: str) -> None:
        """Work on the served lanes until no work is left, or the slice is over and the running set is empty. Issues a ticket for
        `lane` if work remains.
        """
        with self.turn:
            self._run_slice(lane)

    def _run_slice(self, lane: str) -> None:
        context = self.context
        if context.drain.is_requested:
            return  # this process is about to end
        over_at = time.monotonic() + context.settings.ticket_slice_s
        stop_at = time.monotonic() + MAX_SLICES * context.settings.ticket_slice_s
        worked_at, asked, worked, woke = time.monotonic(), False, False, False
        while not self.device_lost:
            self._let_lost_go()
            now = time.monotonic()
            closing = self._is_closing() or now > stop_at
            if not closing and not self.waiting and not self._runs_alone():
                self.claim_prefetcher.start_claim(self._capacity())
                asked = asked or self.claim_prefetcher.is_claiming  # during a pause its result may be out of date
            if self.context.commands and not self._running():
                self.run_commands()
            idle = not self._running() and not self.waiting
            newcomers = self.claim_prefetcher.poll(wait_s=0.05 if idle else 0.0)
            self.waiting.extend(newcomers)
            for job in newcomers:
                self.input_prefetcher.begin(job)
            if newcomers:
                worked = True
                context.heap_trimmer.note_allocation()
                woke = woke or self._wake_another(lane)
            if closing:
                self._hand_back()
            self._admit()
            if newcomers or self._running():
                worked_at = now
            if self._running():
                self._step()
            elif not self.waiting:
                context.step_deadline.idle()
                if self.claim_prefetcher.is_claiming:
                    continue  # the claim's result may hold jobs that no other worker has then
                if closing or now > over_at or (asked and not worked) or now - worked_at > LINGER_S:
                    break
                time.sleep(min(self.claim_prefetcher.pause_s(), LINGER_S))
            else:
                time.sleep(SUSPECT_PAUSE_S)
        context.step_deadline.idle()
        self._keep_learnt()
        self._leave(lane, worked)

    def close(self, reason: str) -> None:
        """Give back every leased job that is not yet in the finishing pool, and end the prefetcher."""
        self.waiting.extend(self.claim_prefetcher.close())
        self._release([*self.waiting, *self._running_jobs()], reason)
        self.input_prefetcher.close()
        self.waiting.clear()

    # phase: fill the running set

    def _capacity(self) -> RunningSetCapacity:
        engine = self.engine
        max_images = self.context.settings.max_running_set_images if engine is None else engine.current_max_images
        if engine is None or not engine.jobs:
            return RunningSetCapacity(max_images, max_images, None)
        running = [self.context.leased_jobs.get(job_id) for job_id in engine.jobs]
        ending = [leased for leased in running if leased is not None and leased.steps - leased.step <= ENDING_STEPS]
        if len(ending) == len(running):
            return RunningSetCapacity(max_images, max_images, None)
        # images without a further step wait for the decoder; the engine already counts their places as free
        leaving = sum(leased.job.count for leased in ending if leased.step < leased.steps)
        return RunningSetCapacity(engine.room + leaving, max_images, engine.compat_key)

    def _admit(self) -> None:
        """Move waiting jobs into the running set, in order, while they fit."""
        encoded = False
        while self.waiting:
            job = self.waiting[0]
            if self._let_late_go(job):
                continue
            if not self.input_prefetcher.ready(job):
                return
            if job.crashes and len(self.context.leased_jobs) > len(self.waiting):
                return  # if this job kills the process again, jobs whose images are being stored must not be suspected
            engine = self.engine
            if engine is not None and engine.jobs:
                if job.compat_key != engine.compat_key or job.count > engine.room or job.crashes or self._runs_alone():
                    return
                if job.id in self._to_lower:
                    return  # the running jobs finish where they are
            else:
                engine = self._engine_for(job)
                if engine is None:
                    self.waiting.popleft()
                    continue
                if self._let_late_go(job):
                    continue  # loading the model took too long for this job
            if not encoded and not job.crashes:
                encoded = True
                self.context.step_deadline.step()  # encoding is a pass of its own
                engine.encode_ahead([other for other in self.waiting if other.compat_key == job.compat_key and not other.crashes])
            self.waiting.popleft()
            self._add(engine, job)

    def _let_late_go(self, job: ClaimedJob) -> bool:
        """Give back the first waiting job if its start deadline has passed; the sweep then fails it as expired. Return whether it
        was given back.
        """
        if not self.context.leased_jobs.is_late(job.id):
            return False
        self.waiting.popleft()
        self._to_lower.pop(job.id, None)
        log.info("job.too_late", job=job.id, attempt=job.attempt)
        self._release([job], "its time was up before it could begin")
        return True

    def _add(self, engine: StepEngine, job: ClaimedJob) -> None:
        context = self.context
        context.leased_jobs.note_begun(job.id)
        try:
            context.step_deadline.step()  # encoding a prompt is a pass of its own
            engine.add(job, self.input_prefetcher.take(job))
        except (RenderError, SQLAlchemyError, OSError) as error:
            failure = _failure_of(error)
            if not self._wants_less(job, failure):
                self._fail(job, failure)
        else:
            context.progress.say(job, 0, job.recipe.steps)

    def _engine_for(self, job: ClaimedJob) -> StepEngine | None:
        """The engine of the job's model, loaded if necessary; None if it cannot be loaded, in which case the job has failed."""
        context, name = self.context, job.model
        until, failure = self._broken.get(name, (0.0, None))
        if failure is not None and time.monotonic() < until:
            self._fail(job, failure)
            return None
        too_much = self._to_lower.pop(job.id, None)
        if too_much is None and self.pipeline is not None and self.engine is not None and self.pipeline.name == name:
            return self.engine
        self._keep_learnt()
        self.engine = self.pipeline = None  # so that residency can free it
        if too_much is not None and context.residency.step_down(name) is None:
            self._fail(job, too_much)
            return None
        loaded = self._load(name)
        if isinstance(loaded, Failure):
            self._fail(job, loaded)
            return None
        self.pipeline = loaded
        self.engine = _engine_class(context.settings.device)(
            loaded,
            max_images=context.settings.max_running_set_images,
            text_encoder_batch_size=context.settings.text_encoder_batch_size,
            tiled=context.settings.vae_tiling,
        )
        context.step_deadline.mean_step_s = None
        return self.engine

    def _load(self, name: str) -> LoadedPipeline | Failure:
        """The model's pipeline, resident or loaded now, or the error. Reports what is new to the store."""
        from worker.render.model_status import report_load_failed, report_loaded, restore_limits

        context = self.context
        was_resident = name in context.residency.names
        context.step_deadline.loading()
        try:
            pipeline = context.residency.get(name)
        except Exception as error:  # noqa: BLE001 - whatever a loader raises, the worker goes on with other models
            failure = _failure_of(error)
            log.warning("model.not_loaded", model=name, code=failure.code, reason=failure.detail)
            self._broken[name] = (time.monotonic() + BROKEN_FOR_S, failure)
            self._tell(lambda: report_load_failed(context, name, failure))
            return failure
        self._broken.pop(name, None)
        if not was_resident:
            self._tell(lambda: report_loaded(context, pipeline))
            self._tell(lambda: restore_limits(context, pipeline))
        return pipeline

    def warm(self, names: list[str]) -> None:
        """Load these models before a job needs them."""
        with self.turn:
            for name in names:
                self._load(name)
            self.context.step_deadline.idle()

    def run_commands(self) -> None:
        """Run the operator's load and unload commands. Only while nothing renders, and while holding the loop's lock."""
        context = self.context
        while context.commands:
            do, name = context.commands.popleft()
            self._keep_learnt()
            self.engine = self.pipeline = None  # so that residency can free it
            if do == "warm":
                self._load(name)
            elif context.residency.unload(name):
                log.info("model.unloaded", model=name)
        context.step_deadline.idle()

    def _keep_learnt(self) -> None:
        from worker.render.model_status import save_limits

        if (pipeline := self.pipeline) is not None:
            self._tell(lambda: save_limits(self.context, pipeline))

    def _tell(self, report: Callable[[], None]) -> None:
        try:
            report()
        except SQLAlchemyError as error:
            log.warning("model.not_reported", error=str(error)[:200])

    # phase: step, and remove what has finished

    def _step(self) -> None:
        context, engine, pipeline = self.context, self.engine, self.pipeline
        assert engine is not None
        assert pipeline is not None
        context.step_deadline.step()
        try:
            report = engine.step()
        except Exception as error:
            # job errors are handled in the engine; this is an error of the engine itself or of the device
            log.exception("engine.failed", jobs=engine.jobs)
            failure = _failure_of(error)
            for job in self._running_jobs():
                self._fail(job, failure)
            self.engine = self.pipeline = None
            return
        context.step_deadline.step_done()
        for job_id, (step, steps) in report.progress.items():
            leased = context.leased_jobs.get(job_id)
            if leased is not None:
                context.leased_jobs.note_step(job_id, step, steps)
                context.progress.say(leased.job, step, steps, report.previews.get(job_id, ()))
        context.step_deadline.finishing()
        for rendered in report.rendered:
            context.progress.say(rendered.job, rendered.job.recipe.steps, rendered.job.recipe.steps)
            context.finishing.submit(rendered, pipeline)
        for failed in report.failed:
            if not self._wants_less(failed.job, failed.failure):
                self._fail(failed.job, failed.failure)

    def _wants_less(self, job: ClaimedJob, failure: Failure) -> bool:
        """Whether a job that ran out of memory alone starts again in this attempt, its model one tier lower. Once per attempt."""
        attempt = (job.id, job.attempt)
        if failure.code != "oom" or attempt in self._lowered:
            return False
        self._lowered.append(attempt)
        self._to_lower[job.id] = failure
        self.waiting.appendleft(job)
        self.input_prefetcher.begin(job)  # its inputs were consumed by the first start
        log.warning("job.one_tier_down", job=job.id, attempt=job.attempt, reason=failure.detail)
        return True

    def _fail(self, job: ClaimedJob, failure: Failure) -> None:
        if failure.code == "device_error":
            self.device_lost = True
        self.context.finishing.fail(job, failure)

    def _let_lost_go(self) -> None:
        """Remove jobs that were cancelled, expired or claimed by another worker. SQL already knows."""
        for job in self.context.leased_jobs.take_lost():
            if self.engine is not None and self.engine.drop(job.id):
                log.info("job.dropped", job=job.id, attempt=job.attempt)
            elif job in self.waiting:
                self.waiting.remove(job)
                self._to_lower.pop(job.id, None)
                self.input_prefetcher.forget(job)
            else:
                continue  # in the finishing pool, which is fenced and cleans up after itself
            self.context.leased_jobs.remove(job)

    # phase: end of a slice, and drain

    def _is_closing(self) -> bool:
        return self.context.drain.is_requested or self.context.desired_state != WorkerState.READY

    def _hand_back(self) -> None:
        """While closing: release jobs that have not started at once, and running jobs only if they would take too long."""
        if self.waiting:
            self._release(list(self.waiting), "the worker stops claiming")
            self.waiting.clear()
        drain = self.context.drain
        if drain.is_requested and self._running() and self._seconds_to_go() > drain.seconds_left():
            running = self._running_jobs()
            for job in running:
                assert self.engine is not None
                self.engine.drop(job.id)
            self._release(running, "the worker shuts down")

    def _leave(self, lane: str, worked: bool) -> None:
        if self.device_lost:
            self.close("the device failed")
            return
        if self.context.drain.is_requested:
            self.close("the worker shuts down")
            return
        if self._is_closing() or not worked:
            return  # an idle worker polls by itself, and so does the sweep
        try:
            if has_work(self.context.store, self.context.identity.serves):
                self.context.issue_ticket(lane)
        except (SQLAlchemyError, RedisError, OperationalError, OSError) as error:
            log.warning("ticket.not_issued", lane=lane, error=str(error)[:200])

    def _wake_another(self, lane: str) -> bool:
        """One ticket wakes one worker. If more work waits than was just taken, issue another ticket. Once per slice."""
        try:
            if has_work(self.context.store, self.context.identity.serves):
                self.context.issue_ticket(lane)
        except (SQLAlchemyError, RedisError, OperationalError, OSError) as error:
            log.warning("ticket.not_issued", lane=lane, error=str(error)[:200])
        return True

    def _release(self, jobs: list[ClaimedJob], reason: str) -> None:
        if not jobs:
            return
        try:
            finish.release(self.context.store, jobs, reason)
        except SQLAlchemyError as error:
            log.error("jobs.not_released", jobs=len(jobs), error=str(error)[:200])  # their leases expire
        for job in jobs:
            self.input_prefetcher.forget(job)
            self.context.leased_jobs.remove(job)

    def _running(self) -> bool:
        return self.engine is not None and bool(self.engine.jobs)

    def _runs_alone(self) -> bool:
        """Whether a running job has crashed its worker before. If it does so again, no other job must be suspected."""
        return any(job.crashes for job in self._running_jobs())

    def _running_jobs(self) -> list[ClaimedJob]:
        leased = [self.context.leased_jobs.get(job_id) for job_id in (self.engine.jobs if self.engine is not None else [])]
        return [item.job for item in leased if item is not None]

    def _seconds_to_go(self) -> float:
        running = [self.context.leased_jobs.get(job.id) for job in self._running_jobs()]
        steps = max((leased.steps - leased.step for leased in running if leased is not None), default=0)
        return steps * (self.context.step_deadline.mean_step_s or 0.0)


def _engine_class(device: str) -> type[StepEngine]:
    if device == FAKE:
        return cast("type[StepEngine]", FakeEngine)
    from worker.engine.engine import StepEngine

    return StepEngine


def _failure_of(error: BaseException) -> Failure:
    from worker.failures import AttemptFailed, failure_of

    if isinstance(error, AttemptFailed):
        return error.failure
    if isinstance(error, SQLAlchemyError):
        return Failure(FailureClass.INFRASTRUCTURE, "database", str(error)[:300])
    if isinstance(error, OSError):
        return Failure(FailureClass.INFRASTRUCTURE, "storage", str(error)[:300])
    return failure_of(error)
