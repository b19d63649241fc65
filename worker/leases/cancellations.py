"""Listens for cancel events, so that a cancelled job stops within a step instead of a lease. Only a hint: SQL decides."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from imagefarm.logs import get_logger
from imagefarm.redis import workers_channel
from worker.leases.lease_keeper import LeaseKeeper
from worker.leases.leased_jobs import LeasedJobs

log = get_logger(__name__)

WAIT_S = 5.0
"""Socket timeout of one read, in seconds; also the longest time that `stop` may take."""


class CancelListener:
    """Reads the workers' events and makes the lease keeper check SQL when an event may concern a leased job."""

    def __init__(self, redis: Redis, prefix: str, leased_jobs: LeasedJobs, keeper: LeaseKeeper) -> None:
        self.redis = redis
        self.channel = workers_channel(prefix)
        self.leased_jobs = leased_jobs
        self.keeper = keeper
        self.failures = 0
        self.on_command: Callable[[], None] = lambda: None
        """Called when an operator sent a command, so that this worker need not wait for its next heartbeat."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cancellations", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Tell the thread to end. It is a daemon thread that holds nothing, so there is no join."""
        self._stopping.set()

    def heard(self, text: str) -> None:
        """Handle one event."""
        if '"worker.command"' in text:
            self.on_command()
        # most events concern other workers' jobs and are not worth parsing
        if not self.leased_jobs or ('"job.cancelled"' not in text and '"bulk.changed"' not in text):
            return
        try:
            event: Any = json.loads(text)
            kind, subject = event["kind"], event["subject"]
        except (ValueError, KeyError, TypeError):
            self.failures += 1
            return
        # a bulk change is published as one event without a job id
        if kind == "bulk.changed" or (kind == "job.cancelled" and self.leased_jobs.get(subject) is not None):
            self.keeper.look_now()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self.redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    pubsub.subscribe(self.channel)
                    # events may have been missed while the connection was down
                    self.keeper.look_now()
                    while not self._stopping.is_set():
                        message = pubsub.get_message(timeout=WAIT_S)
                        if message is not None:
                            self.heard(message["data"])
            except (RedisError, OSError) as error:
                self.failures += 1
                log.warning("cancellations.lost", error=str(error), failures=self.failures)
                self._stopping.wait(1.0)
