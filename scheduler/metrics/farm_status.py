"""The farm's overall status and its reason, for the top of the pages and the queue response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, cast

from imagefarm.messages import N_, Message
from imagefarm.states import WorkerState
from imagefarm.store.models import Worker

SWEEP_LATE_S = 30.0
FarmState = Literal["idle", "rendering", "waiting", "starting", "paused", "no_worker", "degraded"]


@dataclass(frozen=True, slots=True)
class FarmStatus:
    """The status word, its colour, and the reason. Pages translate `text` and `reason`."""

    text: str
    tone: str
    reason: Message

    @property
    def name(self) -> FarmState:
        """The status for programs."""
        return cast("FarmState", self.text.lower().replace(" ", "_"))


class Lane(Protocol):
    """The part of a lane that the status depends on."""

    @property
    def queued(self) -> int: ...

    @property
    def workers(self) -> int: ...


def farm_status(
    alive: Sequence[Worker], lanes: Sequence[Lane], queued: int, running: int, *, redis_is_up: bool, sweep_late_s: float
) -> FarmStatus:
    """The overall status: the first problem found, otherwise the current activity."""
    usable = [worker for worker in alive if worker.desired_state == WorkerState.READY]
    stuck = [lane for lane in lanes if lane.queued and not lane.workers]
    if not redis_is_up:
        return FarmStatus(
            N_("Degraded"),
            "bad",
            Message("Redis is not answering. Jobs are safe in the database. Rendering continues when Redis is back."),
        )
    if not alive:
        reason = (
            Message("No worker is running. Waiting jobs: %(queued)s.", queued=queued)
            if queued
            else Message("Jobs are accepted, but no worker is running.")
        )
        return FarmStatus(N_("No worker"), "bad", reason)
    if sweep_late_s > SWEEP_LATE_S:
        return FarmStatus(
            N_("Degraded"),
            "bad",
            Message("The scheduler's sweep is late, so lost jobs are not recovered. Check that the scheduler is running."),
        )
    if not usable:
        return FarmStatus(
            N_("Paused"), "warn", Message("All workers are draining or quarantined. Waiting jobs: %(queued)s.", queued=queued)
        )
    if running:
        return FarmStatus(
            N_("Rendering"),
            "busy",
            Message("Rendering jobs: %(running)s. Waiting jobs: %(queued)s.", running=running, queued=queued),
        )
    if queued and all(worker.state == WorkerState.STARTING for worker in usable):
        return FarmStatus(
            N_("Starting"), "busy", Message("A worker is loading its model. Waiting jobs: %(queued)s.", queued=queued)
        )
    if stuck:
        return FarmStatus(
            N_("Waiting"),
            "warn",
            Message("Jobs are waiting for a model that no worker serves. Waiting jobs: %(queued)s.", queued=queued),
        )
    if queued:
        return FarmStatus(N_("Waiting"), "warn", Message("Jobs are waiting for a worker: %(queued)s.", queued=queued))
    if all(worker.state == WorkerState.STARTING for worker in usable):
        return FarmStatus(N_("Starting"), "busy", Message("A worker is loading its model."))
    return FarmStatus(N_("Idle"), "good", Message("Ready. No jobs are waiting."))
