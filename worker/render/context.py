"""Everything that one worker child works with, created once at its start."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redis import Redis

from imagefarm.catalogue import Catalogue
from imagefarm.output_store import OutputStore
from imagefarm.settings import Settings
from imagefarm.store import Store
from scheduler.queue.workers import WorkerIdentity
from worker.leases.leased_jobs import LeasedJobs
from worker.memory.malloc_trim import HeapTrimmer
from worker.output.finishing import Finishing
from worker.process.drain import Drain
from worker.process.step_deadline import StepDeadline
from worker.render.progress import ProgressPublisher

if TYPE_CHECKING:
    from worker.models.residency import Residency


@dataclass(slots=True)
class WorkerContext:
    """The parts of a worker, each with its own file. `issue_ticket` announces that a lane has work."""

    settings: Settings
    catalogue: Catalogue
    store: Store
    redis: Redis
    outputs: OutputStore
    identity: WorkerIdentity
    residency: Residency
    leased_jobs: LeasedJobs
    step_deadline: StepDeadline
    progress: ProgressPublisher
    finishing: Finishing
    drain: Drain
    issue_ticket: Callable[[str], None]
    heap_trimmer: HeapTrimmer = field(default_factory=HeapTrimmer)
    commands: deque[tuple[str, str]] = field(default_factory=deque)
    """Pending operator commands as (command, model): warm, unload."""
    desired_state: str = "ready"
    """The operator's desired state at the last heartbeat: ready, draining, quarantined."""
