"""The worker's child process: creates and closes everything that it works with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from celery import Celery
from sqlalchemy.exc import SQLAlchemyError

from imagefarm.catalogue import Catalogue
from imagefarm.event_publisher import EventPublisher
from imagefarm.gc_control import freeze_startup_objects
from imagefarm.logs import get_logger
from imagefarm.output_store import LocalOutputStore
from imagefarm.redis import connect_redis
from imagefarm.settings import Settings
from imagefarm.store import Store
from scheduler import tickets
from scheduler.queue.workers import mark_offline, register
from worker.fake_device import FAKE, FakeResidency
from worker.leases.cancellations import CancelListener
from worker.leases.lease_keeper import LeaseKeeper
from worker.leases.leased_jobs import LeasedJobs
from worker.output.finishing import Finishing
from worker.process.drain import Drain
from worker.process.identity import make_identity
from worker.process.liveness import LIVENESS_FILE, LivenessCounter
from worker.process.step_deadline import StepDeadline
from worker.render.commands import CommandQueue
from worker.render.context import WorkerContext
from worker.render.heartbeat import Heartbeat
from worker.render.loop import RenderLoop
from worker.render.progress import ProgressPublisher

if TYPE_CHECKING:
    from worker.models.residency import Residency

log = get_logger(__name__)

DEVICE_LOST_EXIT = 70
BROKEN_EXIT = 71


def open_device(settings: Settings, catalogue: Catalogue) -> tuple[str, Residency]:
    """Return the device's name and its models. Imports torch, in the child only: the parent never loads it."""
    if settings.device == FAKE:
        log.warning("worker.fake_device", effect="images are noise")
        return FAKE, cast("Residency", FakeResidency(catalogue, settings))
    from worker.models.acceleration import AccelerationSettings
    from worker.models.device import find_device
    from worker.models.residency import Residency

    device = find_device(settings.device)
    AccelerationSettings.of(settings).check(device)
    return str(device), Residency(catalogue, settings)


class RenderProcess:
    """A registered worker with its threads and its render loop. Registers, warms its models, then serves slices."""

    def __init__(self, settings: Settings, catalogue: Catalogue, app: Celery, node: str) -> None:
        self.liveness = LivenessCounter(os.environ.get(LIVENESS_FILE))
        self.liveness.start()
        self.settings = settings
        self.store = Store(settings.database, pool_size=8)
        redis = connect_redis(settings)
        self.store.listener = EventPublisher(redis, settings.redis_prefix)
        device, residency = open_device(settings, catalogue)
        identity = make_identity(settings, catalogue, device=device, node=node)
        leased_jobs = LeasedJobs()
        step_deadline = StepDeadline(settings.lease_s, may_compile=settings.torch_compile, on_phase=self.liveness.set_phase)
        outputs = LocalOutputStore(settings.outputs, identity.id)
        self.context = WorkerContext(
            settings=settings,
            catalogue=catalogue,
            store=self.store,
            redis=redis,
            outputs=outputs,
            identity=identity,
            residency=residency,
            leased_jobs=leased_jobs,
            step_deadline=step_deadline,
            progress=ProgressPublisher(redis, settings.redis_prefix),
            finishing=Finishing(self.store, outputs, settings, identity, leased_jobs),
            drain=Drain(),
            issue_ticket=lambda lane: tickets.issue(app, lane),
        )
        self.keeper = LeaseKeeper(self.store, identity.id, settings.lease_s, leased_jobs=leased_jobs, step_deadline=step_deadline)
        self.listener = CancelListener(redis, settings.redis_prefix, leased_jobs, self.keeper)
        self.heartbeat = Heartbeat(self.context)
        self.loop = RenderLoop(self.context)
        self.commands = CommandQueue(self.loop, on_done=self.heartbeat.now)
        self.heartbeat.on_commands = self.commands.take
        self.listener.on_command = self.heartbeat.now

    def start(self) -> None:
        """Register, start the threads, warm the models."""
        from worker.render.model_status import scan_models

        register(self.store, self.context.identity)
        for part in (self.context.progress, self.keeper, self.listener, self.heartbeat, self.commands):
            part.start()
        scan_models(self.context)
        self.loop.warm([name for name in self.settings.preload_models if name in self.context.identity.serves])
        freeze_startup_objects()
        self.heartbeat.starting = False
        self.heartbeat.now()
        log.info("worker.ready", worker=self.context.identity.id, resident=list(self.context.residency.names))

    def render(self, lane: str) -> None:
        """Serve one ticket."""
        try:
            with self.context.drain.slice():
                self.loop.run_slice(lane)
        except Exception:
            # a bug: while this process lives it renews its leases, so its jobs would never run elsewhere
            log.exception("worker.broken")
            os._exit(BROKEN_EXIT)
        if self.loop.device_lost:
            self.stop("its device failed")
            # without exit hooks and destructors, because they might wait for the device
            os._exit(DEVICE_LOST_EXIT)

    def stop(self, reason: str) -> None:
        """Requeue leased jobs, commit rendered images, mark the worker offline, and close everything."""
        self.loop.close(reason)
        self.context.finishing.close()
        for part in (self.commands, self.listener, self.heartbeat, self.keeper, self.context.progress):
            part.stop()
        try:
            mark_offline(self.store, self.context.identity.id, self.settings, reason, clean=True)
        except SQLAlchemyError as error:
            log.warning("worker.mark_offline_failed", error=str(error)[:200])  # the sweep will find its heartbeat missing
        self.store.close()
