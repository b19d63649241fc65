"""Workers that die at one point of a job's way from claim to acknowledgement."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.run import Fault, Run

POINTS = {
    "after_claim": "kill -9 after a claim, before the first step",
    "before_rename": "kill -9 when an image is written under its temporary name",
    "after_rename": "kill -9 when an image has its final name and no row",
    "in_transaction": "kill -9 in the middle of a job's last transaction",
    "after_commit": "kill -9 after the commit, before any process has read its result",
    "before_ack": "kill -9 when a ticket is done and not acknowledged",
}


def killed_at(point: str, what: str) -> Callable[[Run], None]:
    def inject(run: Run) -> None:
        run.farm.lay(point, after=run.random.randint(0, 1 if point == "before_ack" else run.jobs // 4))
        run.submit()
        run.wait_for_point(point)
        run.begin()

    inject.__doc__ = what
    return inject


def answer_lost(run: Run) -> None:
    """the commit succeeds, and its response is lost with the connection"""
    run.farm.lay("answer_lost", "raise", after=run.random.randint(0, run.jobs // 3))
    run.submit()
    run.wait_for_point("answer_lost")
    run.begin()


def loop_broken(run: Run) -> None:
    """a bug in the worker's render loop, after a claim and before the first step"""
    run.farm.lay("after_claim", "raise", after=run.random.randint(0, run.jobs // 4))
    run.submit()
    run.wait_for_point("after_claim")
    run.begin()


FAULTS = [
    *(Fault(f"killed-{point.replace('_', '-')}", killed_at(point, what)) for point, what in POINTS.items()),
    Fault("commit-answer-lost", answer_lost),
    Fault("loop-broken", loop_broken),
]
