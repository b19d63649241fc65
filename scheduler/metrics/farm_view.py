"""A snapshot of the farm for REST, the status page and the admin pages. `scheduler.metrics.read_farm` creates it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from imagefarm.states import WorkerState
from scheduler.metrics.farm_status import FarmStatus


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that a worker is running."""

    id: str
    prompt: str
    count: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """One worker. `silent_since` is its last heartbeat if that is overdue, else None. `load` is its latest load report."""

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
        """The state to display: the operator's desired state if it is not `ready`, otherwise the actual state."""
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
    """Images per minute; 0 unless the view was read with `detailed`."""
    drain_s: float | None = None

    @property
    def is_broken(self) -> bool:
        return self.state in {"missing", "invalid"}

    @property
    def is_active(self) -> bool:
        """Whether jobs run or wait here, or could run at once."""
        return bool(self.queued or self.running or self.resident or (self.state == "ready" and self.workers))


@dataclass(frozen=True, slots=True)
class FlowView:
    """The jobs of one tenant in one priority class on one lane."""

    model: str
    priority: str
    tenant: str
    queued: int
    running: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmView:
    """The whole farm. `alive` is the number of live workers; `now` is the database's time.

    The `repr` leaves out flows and the time, because pages compare it to find out whether anything they show has changed.
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
        """Lanes to show at once: in use, or requested although the model cannot be loaded."""
        return tuple(lane for lane in self.lanes if lane.is_active or lane.state == "invalid")

    @property
    def other_lanes(self) -> tuple[LaneView, ...]:
        return tuple(lane for lane in self.lanes if lane not in self.active_lanes)
