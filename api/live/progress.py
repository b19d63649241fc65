"""The progress and previews of running jobs, read from Redis. Without Redis there are none."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence

from redis import Redis
from redis.exceptions import RedisError

from imagefarm.logs import get_logger
from imagefarm.redis import preview_key, progress_key

log = get_logger(__name__)

REST_S = 5.0
"""Seconds without Redis calls after a failure, so that not every request waits for the timeout."""


class ProgressReader:
    """Reads progress and previews. Without Redis no job has any; `failures` counts the failed reads."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self.redis = redis
        self.prefix = prefix
        self.failures = 0
        self._rest_until = 0.0

    def read(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Return the current step of each of these jobs that has progress in Redis."""
        if not job_ids or time.monotonic() < self._rest_until:
            return {}
        try:
            values = self.redis.mget([progress_key(self.prefix, job_id) for job_id in job_ids])
        except (RedisError, OSError) as error:
            self.failures += 1
            self._rest_until = time.monotonic() + REST_S
            log.warning("progress.unavailable", error=str(error), failures=self.failures)
            return {}
        return {job_id: step_of(value) for job_id, value in zip(job_ids, values, strict=True) if value is not None}

    def preview(self, job_id: str, index: int) -> bytes | None:
        """The newest preview of one image of a running job, as WebP bytes; None without a preview or without Redis."""
        if time.monotonic() < self._rest_until:
            return None
        try:
            value = self.redis.hget(preview_key(self.prefix, job_id), str(index))
        except (RedisError, OSError) as error:
            self.failures += 1
            self._rest_until = time.monotonic() + REST_S
            log.warning("progress.unavailable", error=str(error), failures=self.failures)
            return None
        return None if value is None else base64.b64decode(json.loads(value)["data"])


def step_of(value: str | bytes) -> int:
    """The step in a progress value; 0 if the value has none."""
    found = json.loads(value)
    step = found.get("step", 0) if isinstance(found, dict) else 0
    return step if isinstance(step, int) else 0
