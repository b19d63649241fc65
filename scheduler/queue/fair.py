"""Start-time fair queueing in two levels: priority classes share 4 : 1, tenants within a class share by weight.

Each flow (class, tenant) has a virtual time, its `pass`. Serving it for c GPU-seconds advances its pass by c / weight, and the
smallest pass is served next. An idle flow restarts at the virtual time of its class, so it neither saves up a share nor loses
one. After P. Goyal, H. Vin, H. Cheng: Start-time Fair Queuing (SIGCOMM 1996), with the two levels of hierarchical fair queueing
and one deviation: a lane whose model is not resident is handicapped by its swap cost, a bounded amount, so no flow starves.

`FairQueue` is the arithmetic alone, on plain numbers; `scheduler.queue.claim` loads it from SQL and stores it back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class FlowShare:
    """Virtual time of one tenant in one class. `pass_` is in GPU-seconds over weight."""

    priority_class: str
    tenant_id: str
    weight: float = 1.0
    pass_: float = 0.0
    active: bool = False
    """Whether it had waiting work at the last claim. Running work is already charged and does not count."""


@dataclass(slots=True)
class ClassShare:
    """Virtual time of one class, and `vtime`, the virtual time among its flows."""

    name: str
    weight: float = 1.0
    pass_: float = 0.0
    vtime: float = 0.0
    active: bool = False


@dataclass(slots=True)
class Lane:
    """A flow's work on one model. `swap_s` is 0 when the worker has the model resident."""

    flow: FlowShare
    model: str
    swap_s: float = 0.0


@dataclass
class FairQueue:
    """The shares of all classes and flows, and the virtual time `vtime` between the classes."""

    classes: dict[str, ClassShare]
    vtime: float = 0.0
    flows: dict[tuple[str, str], FlowShare] = field(default_factory=dict)

    def note_work(self, with_work: set[tuple[str, str]]) -> None:
        """Set which flows (class, tenant) have waiting work now. A flow that had none restarts at the current virtual time.

        A flow whose work is all running is idle, as in the paper: virtual time advances with the flows that are served, and its
        next job
        starts there. Otherwise a long render would save up the share that others received meanwhile.
        """
        busy_classes = {name for name, _ in with_work}
        for share in self.classes.values():
            if share.name in busy_classes and not share.active:
                share.pass_ = max(share.pass_, self.vtime)
            share.active = share.name in busy_classes
        for key, flow in self.flows.items():
            if key in with_work and not flow.active:
                flow.pass_ = max(flow.pass_, self.classes[flow.priority_class].vtime)
            flow.active = key in with_work

    def order(self, lanes: list[Lane]) -> Iterator[Lane]:
        """Yield the lanes in the order in which to try them: best class first, then best flow and model within it."""

        def key(lane: Lane) -> tuple[float, str, float, str, str]:
            share = self.classes[lane.flow.priority_class]
            handicap = lane.swap_s / lane.flow.weight
            return (share.pass_, share.name, lane.flow.pass_ + handicap, lane.flow.tenant_id, lane.model)

        yield from sorted(lanes, key=key)

    def charge(self, flow: FlowShare, cost_s: float) -> None:
        """Charge a claim of `cost_s` predicted GPU-seconds to this flow."""
        share = self.classes[flow.priority_class]
        self.vtime = max(self.vtime, share.pass_)
        share.vtime = max(share.vtime, flow.pass_)
        self.correct(flow, cost_s)

    def correct(self, flow: FlowShare, difference_s: float) -> None:
        """Correct a charge by actual minus predicted GPU-seconds (negative: a refund)."""
        flow.pass_ += difference_s / flow.weight
        share = self.classes[flow.priority_class]
        share.pass_ += difference_s / share.weight
