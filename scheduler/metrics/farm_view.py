"""What REST, the status page and the admin pages show of the farm at one moment. `scheduler.metrics.read_farm` fills it in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from imagefarm.states import WorkerState
from scheduler.metrics.farm_status import FarmStatus


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that a worker holds."""

    id: str
    prompt: str
    count: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """One worker. `silent_since` is its last heartbeat if that is long ago, else None. `load` is what it told last."""

    id: str
    name: str
    host: str
    pid: int
    device: str
    version: str
    state: str
    desired_state: str
    reason: str
    serves: tuple[str, ...]
    resident: tuple[str, ...]
    running: tuple[RunningJob, ...]
    silent_since: float | None
    heartbeat_at: float
    started_at: float
    facts: tuple[tuple[str, Any], ...]
    load: tuple[tuple[str, Any], ...]

    @property
    def shown_state(self) -> str:
        """The state a person cares about: what an operator wants of it, where that is more than `ready`."""
        if self.desired_state != WorkerState.READY and self.state != WorkerState.OFFLINE:
            return self.desired_state
        return self.state


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneView:
    """The queue of one model, and the model's own state."""

    model: str
    title: str
    queued: int
    running: int
    oldest_at: float | None
    workers: int
    resident: int
    state: str
    reason: str
    rate: float = 0.0
    """Pictures a minute; looked up only when the farm is looked at closely."""
    drain_s: float | None = None

    @property
    def is_broken(self) -> bool:
        return self.state in {"missing", "invalid"}

    @property
    def is_active(self) -> bool:
        """Somebody works or waits here, or could at once."""
        return bool(self.queued or self.running or self.resident or (self.state == "ready" and self.workers))


@dataclass(frozen=True, slots=True)
class FlowView:
    """What one tenant has in one priority class on one lane."""

    model: str
    priority: str
    tenant: str
    queued: int
    running: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmView:
    """Everything above together. `alive` is how many workers are; `now` is the database's time.

    Flows and the time are no part of its `repr`, by which pages tell whether anything they show has changed.
    """

    status: FarmStatus
    workers: tuple[WorkerView, ...]
    lanes: tuple[LaneView, ...]
    queued: int
    running: int
    alive: int
    flows: tuple[FlowView, ...] = field(repr=False)
    now: float = field(repr=False)

    @property
    def active_lanes(self) -> tuple[LaneView, ...]:
        """Lanes to show at once: in use, or asked for although the model cannot be loaded."""
        return tuple(lane for lane in self.lanes if lane.is_active or lane.state == "invalid")

    @property
    def other_lanes(self) -> tuple[LaneView, ...]:
        return tuple(lane for lane in self.lanes if lane not in self.active_lanes)
