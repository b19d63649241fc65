"""Fair queueing as arithmetic: shares, bounds, and no credit for idleness."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scheduler.queue.fair import ClassShare, FairQueue, FlowShare, Lane

COSTS = st.floats(0.05, 2.0)
MAX_COST = 2.0


def queue_of(weights: dict[str, float], priority_class: str = "bulk") -> FairQueue:
    queue = FairQueue({"interactive": ClassShare("interactive", 4.0), "bulk": ClassShare("bulk", 1.0)})
    for tenant, weight in weights.items():
        queue.flows[priority_class, tenant] = FlowShare(priority_class, tenant, weight)
    return queue


def serve(queue: FairQueue, cost: float, lanes: list[Lane] | None = None) -> FlowShare:
    queue.note_work(set(queue.flows) if lanes is None else {(lane.flow.priority_class, lane.flow.tenant_id) for lane in lanes})
    lane = next(queue.order([Lane(flow, "m") for flow in queue.flows.values()] if lanes is None else lanes))
    queue.charge(lane.flow, cost)
    return lane.flow


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0.5, 8.0), min_size=2), st.lists(COSTS, min_size=50, max_size=300))
def test_backlogged_flows_share_by_weight_within_one_quantum(weights: dict[str, float], costs: list[float]) -> None:
    queue, served = queue_of(weights), Counter[str]()
    for cost in costs:
        served[serve(queue, cost).tenant_id] += cost  # type: ignore[assignment]
    normal = {tenant: served[tenant] / weight for tenant, weight in weights.items()}
    # SFQ, theorem 1: any two backlogged flows differ by at most l_i / w_i + l_j / w_j
    for one, first in weights.items():
        for other, second in weights.items():
            assert abs(normal[one] - normal[other]) <= MAX_COST / first + MAX_COST / second + 1e-9


@given(st.integers(1, 400), COSTS)
def test_an_idle_flow_saves_nothing_up_and_waits_at_most_one_turn(turns: int, cost: float) -> None:
    queue = queue_of({"busy": 1.0})
    for _ in range(turns):
        serve(queue, cost)
    queue.flows["bulk", "late"] = FlowShare("bulk", "late")
    first_two = [serve(queue, cost).tenant_id for _ in range(2)]
    assert "late" in first_two
    following = Counter(serve(queue, cost).tenant_id for _ in range(100))
    assert abs(following["late"] - following["busy"]) <= 2


@given(st.lists(COSTS, min_size=100, max_size=300))
def test_classes_share_four_to_one(costs: list[float]) -> None:
    queue = queue_of({"shop": 1.0})
    queue.flows["interactive", "person"] = FlowShare("interactive", "person")
    served: Counter[str] = Counter()
    for cost in costs:
        served[serve(queue, cost).priority_class] += cost  # type: ignore[assignment]
    assert abs(served["interactive"] / 4 - served["bulk"]) <= MAX_COST / 4 + MAX_COST + 1e-9


@given(st.floats(0.0, 30.0), COSTS)
def test_a_swap_handicap_is_bounded(swap_s: float, cost: float) -> None:
    queue = queue_of({"resident": 1.0, "other": 1.0})
    lanes = [Lane(queue.flows["bulk", "resident"], "a"), Lane(queue.flows["bulk", "other"], "b", swap_s)]
    waited = 0.0
    while serve(queue, cost, lanes).tenant_id == "resident":
        waited += cost
        assert waited <= swap_s + 2 * cost


def test_a_refund_gives_the_turn_back() -> None:
    queue = queue_of({"a": 1.0, "b": 1.0})
    first = serve(queue, 2.0)
    queue.correct(first, -2.0)
    assert serve(queue, 2.0).tenant_id == first.tenant_id


Key = tuple[str, str]
CLASS_WEIGHTS = {"interactive": 4.0, "bulk": 1.0}
IN_FLIGHT = 2
"""Claims whose actual cost is still to come, at most, in the machine below."""


class FairQueueMachine(RuleBasedStateMachine):
    """Flows come, are served, corrected, re-weighted and go, also while some of theirs runs, in any order. The model is a
    ledger: what each flow was served over its weight, and for every two that have had work all the while, what they had when
    that began.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue({name: ClassShare(name, weight) for name, weight in CLASS_WEIGHTS.items()})
        self.waiting: set[Key] = set()
        self.running: list[tuple[Key, float]] = []
        self.by_flow, self.by_class = Counter[Key](), Counter[str]()
        self.since: dict[tuple[Key, Key], float] = {}
        """How far the first was ahead of the second when both began to wait."""
        self.classes_since: float | None = None
        self.least: dict[Key, float] = {}
        self.vtimes = self.times()

    def times(self) -> list[float]:
        return [self.queue.vtime, *(share.vtime for share in self.queue.classes.values())]

    def note(self, key: Key, seconds: float) -> None:
        self.by_flow[key] += seconds / self.queue.flows[key].weight  # type: ignore[assignment]
        self.by_class[key[0]] += seconds / CLASS_WEIGHTS[key[0]]  # type: ignore[assignment]

    @rule(name=st.sampled_from(sorted(CLASS_WEIGHTS)), tenant=st.sampled_from("abc"), weight=st.floats(0.5, 8.0))
    def work_comes(self, name: str, tenant: str, weight: float) -> None:
        key = (name, tenant)
        if key not in self.queue.flows:
            self.queue.flows[key] = FlowShare(name, tenant, weight)
            self.least[key] = weight
        self.waiting.add(key)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def work_ends(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.waiting)))
        self.waiting.remove(key)  # running jobs continue, and their cost is corrected when they end
        self.since = {pair: ahead for pair, ahead in self.since.items() if key not in pair}
        if {name for name, _ in self.waiting} != set(CLASS_WEIGHTS):
            self.classes_since = None

    @precondition(lambda self: self.queue.flows)
    @rule(data=st.data(), weight=st.floats(0.5, 8.0))
    def weight_changes(self, data: st.DataObject, weight: float) -> None:
        key = data.draw(st.sampled_from(sorted(self.queue.flows)))
        self.queue.flows[key].weight = weight
        self.least[key] = min(self.least[key], weight)

    def claim(self, cost: float) -> Key:
        before = {key: (flow.pass_, flow.active) for key, flow in self.queue.flows.items()}
        self.queue.note_work(set(self.waiting))
        for key, flow in self.queue.flows.items():
            pass_, active = before[key]
            woken = key in self.waiting and not active
            assert flow.pass_ == (max(pass_, self.queue.classes[key[0]].vtime) if woken else pass_)
        for one in self.waiting:
            for other in self.waiting:
                if one < other and one[0] == other[0]:
                    self.since.setdefault((one, other), self.by_flow[one] - self.by_flow[other])
        if {name for name, _ in self.waiting} == set(CLASS_WEIGHTS) and self.classes_since is None:
            self.classes_since = self.by_class["interactive"] - self.by_class["bulk"]
        lanes = [Lane(self.queue.flows[key], "m") for key in sorted(self.waiting)]
        flow = next(self.queue.order(lanes)).flow
        key = (flow.priority_class, flow.tenant_id)
        assert flow.pass_ == min(self.queue.flows[each].pass_ for each in self.waiting if each[0] == key[0])
        self.queue.charge(flow, cost)
        self.note(key, cost)
        return key

    @precondition(lambda self: self.waiting)
    @rule(cost=COSTS, times=st.integers(1, 40))
    def many_are_served_as_predicted(self, cost: float, times: int) -> None:
        for _ in range(times):
            self.claim(cost)

    @precondition(lambda self: self.waiting and len(self.running) < IN_FLIGHT)
    @rule(cost=COSTS)
    def one_is_claimed(self, cost: float) -> None:
        self.running.append((self.claim(cost), cost))

    @precondition(lambda self: self.running)
    @rule(actual=st.one_of(st.just(0.0), COSTS))
    def one_ends_or_is_given_back(self, actual: float) -> None:
        key, cost = self.running.pop(0)
        self.queue.correct(self.queue.flows[key], actual - cost)
        self.note(key, actual - cost)

    @invariant()
    def time_never_goes_back(self) -> None:
        now = self.times()
        assert all(after >= before for before, after in zip(self.vtimes, now, strict=True))
        self.vtimes = now

    @invariant()
    def who_waits_all_the_while_gets_its_share(self) -> None:
        """Within a claim each of theorem 1, and the claims whose predictions were off, both when it began and now."""
        slack = 2 * (1 + IN_FLIGHT) * MAX_COST
        for (one, other), before in self.since.items():
            apart = self.by_flow[one] - self.by_flow[other] - before
            assert abs(apart) <= slack / self.least[one] + slack / self.least[other] + 1e-6

    @invariant()
    def classes_that_wait_all_the_while_share_four_to_one(self) -> None:
        if self.classes_since is not None:
            apart = self.by_class["interactive"] - self.by_class["bulk"] - self.classes_since
            assert abs(apart) <= 2 * (1 + IN_FLIGHT) * MAX_COST * (1 / 4 + 1) + 1e-6


FairQueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestFairQueueMachine = FairQueueMachine.TestCase
