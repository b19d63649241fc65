"""Fair queueing as arithmetic: shares, bounds, and no credit for idleness."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from scheduler.fair import ClassShare, FairQueue, FlowShare, Lane

COSTS = st.floats(0.05, 2.0)
MOST = 2.0


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
            assert abs(normal[one] - normal[other]) <= MOST / first + MOST / second + 1e-9


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
    assert abs(served["interactive"] / 4 - served["bulk"]) <= MOST / 4 + MOST + 1e-9


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
