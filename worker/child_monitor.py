"""The work of a worker's parent process besides Celery's own. The parent never uses a device, so it always responds.

- The child died: its jobs go back to the queue at once, and a ticket calls a worker for them.
- The child is idle although a lane has work: a ticket was lost, so one is issued.
- The parent gets SIGTERM: the child drains.
- The child takes more memory than its limit (see worker.process.memory_limit): the parent kills it.
- The child's interpreter hangs (see worker.process.liveness): the parent kills it.
- The operator drains the worker: it stops consuming the tickets of its lanes.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

from celery import Celery, bootsteps
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from imagefarm.event_publisher import EventPublisher
from imagefarm.logs import get_logger
from imagefarm.redis import connect_redis
from imagefarm.settings import Settings
from imagefarm.states import WorkerState
from imagefarm.store import Store
from imagefarm.store.models import Backlog, Worker
from scheduler import tickets
from scheduler.celery_app import lane_queue
from scheduler.queue.workers import mark_offline
from worker.leases.lease_keeper import HUNG_EXIT, STUCK_EXIT
from worker.process.billiard_adapter import (
    POOL_STEP,
    PreforkPool,
    describe_exit,
    has_active_tasks,
    request_shutdown,
)
from worker.process.identity import next_incarnation
from worker.process.liveness import LivenessMonitor
from worker.process.memory_limit import GIB, MemoryLimit

log = get_logger(__name__)

LOOK_EVERY_S = 3.0
"""How often an idle worker looks for work without a ticket, in seconds."""
REAP_EVERY_S = 0.5
"""How often the pool looks for a child that died, in seconds: one waitpid."""
NOT_ITS_OWN = {None, -signal.SIGKILL, -signal.SIGTERM, STUCK_EXIT}
"""Exit codes of a child that was perhaps killed from outside, or that was stuck in work that no job causes."""
ENDS = {
    HUNG_EXIT: "hung: a step did not end, and the process was ended",
    STUCK_EXIT: "hung: a model's load, or the storing of pictures, did not end, and the process was ended",
}
TROUBLES = (SQLAlchemyError, RedisError, OperationalError, OSError)


class ChildMonitor:
    """A thread of the parent: requeues the jobs of children that died and issues tickets for work that has none."""

    def __init__(self, app: Celery, settings: Settings, serves: list[str], node: str) -> None:
        self.app = app
        self.settings = settings
        self.serves = serves
        self.node = node
        self.incarnation = ""
        """The incarnation of the current child."""
        self.failures = 0
        self._deaths: list[tuple[str, str, bool]] = []
        self._wake = threading.Event()
        self._stopping = False
        self._consuming = True
        self._store: Store | None = None
        self._redis: Redis | None = None
        self._thread = threading.Thread(target=self._run, name="child-monitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Requeue the jobs of the children that died, and end the thread."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def child_starts(self) -> None:
        """Give the next child a new incarnation. Called before it is created."""
        self.incarnation = next_incarnation()

    def child_ended(self, incarnation: str, exitcode: int | None, ended_here: tuple[str, bool] | None = None) -> None:
        """Note that a child has ended. `ended_here` is (reason, whether a job is to blame) if this process killed it. Called in
        Celery's event loop, which must not wait for SQL.
        """
        reason = ENDS.get(exitcode or 0, f"its process ended with {describe_exit(exitcode)}")
        reason, self_inflicted = ended_here or (reason, exitcode not in NOT_ITS_OWN)
        self._deaths.append((incarnation, reason, self_inflicted))
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait(LOOK_EVERY_S)
            self._wake.clear()
            try:
                self._requeue_dead_child()
                if self._stopping:
                    return
                self._look_for_work()
            except TROUBLES as error:
                self.failures += 1
                log.warning("child_monitor.failed", error=str(error)[:200], failures=self.failures)
                if self._stopping:
                    return

    def _requeue_dead_child(self) -> None:
        while self._deaths:
            incarnation, reason, self_inflicted = self._deaths[0]
            jobs = mark_offline(self.store, incarnation, self.settings, reason, clean=False, self_inflicted=self_inflicted)
            log.info("child.ended", worker=incarnation, reason=reason, jobs=jobs)
            del self._deaths[0]

    def _look_for_work(self) -> None:
        with self.store.read() as session:
            waiting = session.execute(
                select(Backlog.model, func.sum(Backlog.queued))
                .where(Backlog.queued > 0, Backlog.model.in_(self.serves))
                .group_by(Backlog.model)
            ).all()
            desired_state = session.scalar(select(Worker.desired_state).where(Worker.id == self.incarnation))
        self._follow(desired_state or WorkerState.READY)
        if has_active_tasks() or not self._consuming:
            return
        for model, _ in waiting:
            if tickets.waiting(self.redis, self.settings.redis_prefix, model) == 0:
                tickets.issue(self.app, model)
                return  # one is enough: the worker that takes it serves all its lanes

    def _follow(self, desired_state: str) -> None:
        """Stop consuming the tickets of the lanes while the worker drains, so that other workers get them."""
        consuming = desired_state == WorkerState.READY
        if consuming == self._consuming:
            return
        for model in self.serves:
            if consuming:
                self.app.control.add_consumer(lane_queue(model), destination=[self.node])
            else:
                self.app.control.cancel_consumer(lane_queue(model), destination=[self.node])
        self._consuming = consuming

    @property
    def store(self) -> Store:
        """Created at first use, because the database may be down when the worker starts."""
        if self._store is None:
            self._store = Store(self.settings.database, pool_size=2)
            self._store.listener = EventPublisher(self.redis, self.settings.redis_prefix)
        return self._store

    @property
    def redis(self) -> Redis:
        if self._redis is None:
            self._redis = connect_redis(self.settings)
        return self._redis


class ChildMonitorStep(bootsteps.StartStopStep):
    """The step of Celery's worker that gives the child monitor access to the pool. The pool has one process."""

    requires = (POOL_STEP,)
    child_monitor: ChildMonitor
    liveness_monitor: LivenessMonitor
    limit: MemoryLimit | None = None

    def start(self, worker: Any) -> None:
        self.child_monitor.node = worker.hostname
        self.child_monitor.start()
        max_gib, pool = self.child_monitor.settings.worker_memory_limit_gib, PreforkPool(worker)
        if max_gib:
            self.limit = MemoryLimit(int(max_gib * GIB), pool.pids)
            self.limit.start()
        self.liveness_monitor.children = pool.pids
        self.liveness_monitor.start()

        def drain(_number: int, _frame: Any) -> None:
            # Celery's own handler waits until a slice ends by itself, or (with REMAP_SIGTERM) for its whole soft time-out,
            # whether a task runs or not. A drain is passed on to the child, and ends when the child has drained.
            request_shutdown()
            self._drain_children(worker)

        signal.signal(signal.SIGTERM, drain)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Register callbacks again: the pool replaces its own at every connection to the broker, after this method has run."""
        pool = PreforkPool(worker)
        hub.call_soon(pool.on_child_end, self._report_end)
        # The pool looks for dead children when a child's pipe closes, but the pipe of a killed process closes a moment before
        # waitpid returns it; the pool would look again only after 5 s. The timer ends with the connection, like the pool's own.
        hub.call_repeatedly(REAP_EVERY_S, pool.reap)

    def _report_end(self, pid: int, exitcode: int | None) -> None:
        # the next child is created after this, so the incarnation is still that of the dead child
        self.child_monitor.child_ended(self.child_monitor.incarnation, exitcode, self._ended_here(pid))

    def _ended_here(self, pid: int) -> tuple[str, bool] | None:
        too_much = self.limit.ended.pop(pid, None) if self.limit is not None else None
        return (too_much, True) if too_much is not None else self.liveness_monitor.ended.pop(pid, None)

    def close(self, worker: Any) -> None:
        """Drain the child. Called when the worker ends, also by Ctrl-C or a control command; it then waits for its child."""
        self._drain_children(worker)

    def _drain_children(self, worker: Any) -> None:
        """Drain a child that renders, so that the worker does not wait for its whole slice. The pool ends an idle child."""
        if has_active_tasks():
            PreforkPool(worker).terminate_children()

    def stop(self, _worker: Any) -> None:
        """Does nothing: the pool stops after this, and worker.service then requeues the jobs of its last child."""
