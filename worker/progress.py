"""Live progress to Redis, off the render thread: never blocking it, never failing it."""

from __future__ import annotations

import threading
import time
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from imagefarm.logs import get_logger
from imagefarm.redis import publish_progress
from scheduler.claim import ClaimedJob

log = get_logger(__name__)

EVERY_S = 0.1
"""At most this often for one job. What happens in between is skipped, the latest never is."""
PAUSE_AFTER_FAILURE_S = 1.0


class ProgressPublisher:
    """Publishes the latest step of each job. Failures are counted in `failures`."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self.redis = redis
        self.prefix = prefix
        self.failures = 0
        self._latest: dict[str, tuple[str, dict[str, Any]]] = {}
        self._something = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 3.0) -> None:
        """Publish what waits and end the thread."""
        with self._something:
            self._stopping = True
            self._something.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def say(self, job: ClaimedJob, step: int, steps: int) -> None:
        """A job has reached `step` of `steps`."""
        with self._something:
            self._latest[job.id] = (job.tenant_id, {"step": step, "steps": steps, "attempt": job.attempt})
            self._something.notify()

    def _run(self) -> None:
        while True:
            with self._something:
                self._something.wait_for(lambda: self._latest or self._stopping)
                latest, self._latest = self._latest, {}
                stopping = self._stopping
            pause = self._flush(latest)
            if stopping:
                return
            time.sleep(pause)

    def _flush(self, latest: dict[str, tuple[str, dict[str, Any]]]) -> float:
        try:
            for job_id, (tenant_id, progress) in latest.items():
                publish_progress(self.redis, self.prefix, job_id, tenant_id, progress)
        except (RedisError, OSError) as error:
            # live news is stale a moment later; what is needed to recover is in SQL
            self.failures += 1
            log.warning("progress.failed", error=str(error), failures=self.failures)
            return PAUSE_AFTER_FAILURE_S
        return EVERY_S
