"""The farm's overall status and its reason, for the top of the pages and the queue response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, cast

from imagefarm.states import WorkerState
from imagefarm.store.models import Worker

SWEEP_LATE_S = 30.0
FarmState = Literal["idle", "rendering", "waiting", "starting", "paused", "no_worker", "degraded"]


@dataclass(frozen=True, slots=True)
class FarmStatus:
    """The status word, its colour, and the reason. `text` and `reason` are translation keys."""

    text: str
    tone: str
    reason: str
    values: tuple[tuple[str, object], ...] = ()

    @property
    def sentence(self) -> str:
        """The reason in English."""
        return self.reason.format(**dict(self.values))

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
    counts = (("queued", queued), ("running", running), ("workers", len(alive)))
    if not redis_is_up:
        return FarmStatus(
            "Degraded", "bad", "Redis does not answer. Jobs are safe in the database; rendering goes on when it is back."
        )
    if not alive:
        reason = "{queued} jobs wait, and no worker is running." if queued else "Jobs are accepted, but no worker is running."
        return FarmStatus("No worker", "bad", reason, counts)
    if sweep_late_s > SWEEP_LATE_S:
        return FarmStatus(
            "Degraded", "bad", "The scheduler has not swept for a while: lost jobs are not recovered. Is it running?"
        )
    if not usable:
        return FarmStatus("Paused", "warn", "Every worker is draining or quarantined; {queued} jobs wait.", counts)
    if running:
        return FarmStatus("Rendering", "busy", "{running} jobs are being rendered, {queued} wait.", counts)
    if queued and all(worker.state == WorkerState.STARTING for worker in usable):
        return FarmStatus("Starting", "busy", "A worker is loading its model; {queued} jobs wait.", counts)
    if stuck:
        return FarmStatus("Waiting", "warn", "{queued} jobs wait for a model that no worker serves.", counts)
    if queued:
        return FarmStatus("Waiting", "warn", "{queued} jobs wait for a worker to take them.", counts)
    if all(worker.state == WorkerState.STARTING for worker in usable):
        return FarmStatus("Starting", "busy", "A worker is loading its model.")
    return FarmStatus("Idle", "good", "Ready: nothing waits.")
