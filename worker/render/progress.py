"""Live progress to Redis from a thread of its own: it never blocks or fails the render thread."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.exceptions import RedisError

from imagefarm.logs import get_logger
from imagefarm.redis import JobProgress, publish_progress
from scheduler.queue.claim import ClaimedJob

if TYPE_CHECKING:
    from worker.engine.results import Preview

log = get_logger(__name__)

EVERY_S = 0.2
"""Shortest interval between two publishes for all jobs, in seconds. Intermediate steps are skipped, the latest never is."""
PAUSE_AFTER_FAILURE_S = 1.0
PREVIEW_QUALITY = 60


class ProgressPublisher:
    """Publishes the latest step of each job. Failures are counted in `failures`."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self.redis = redis
        self.prefix = prefix
        self.failures = 0
        self._latest: dict[str, tuple[str, dict[str, Any]]] = {}
        self._previews: dict[str, dict[int, Preview]] = {}
        self._something = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 3.0) -> None:
        """Publish what is pending and end the thread."""
        with self._something:
            self._stopping = True
            self._something.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def say(self, job: ClaimedJob, step: int, steps: int, previews: Sequence[Preview] = ()) -> None:
        """Record that a job has reached `step` of `steps`, with new `previews` of its images."""
        with self._something:
            if previews:
                self._previews.setdefault(job.id, {}).update((preview.index, preview) for preview in previews)
            self._latest[job.id] = (job.tenant_id, {"step": step, "steps": steps, "attempt": job.attempt})
            self._something.notify()

    def _run(self) -> None:
        while True:
            with self._something:
                self._something.wait_for(lambda: self._latest or self._stopping)
                latest, self._latest = self._latest, {}
                previews, self._previews = self._previews, {}
                stopping = self._stopping
            pause = self._flush(latest, previews)
            if stopping:
                return
            time.sleep(pause)

    def _flush(self, latest: dict[str, tuple[str, dict[str, Any]]], previews: dict[str, dict[int, Preview]]) -> float:
        try:
            jobs = [
                JobProgress(job_id, tenant_id, progress, [preview_json(preview) for preview in previews.get(job_id, {}).values()])
                for job_id, (tenant_id, progress) in latest.items()
            ]
            publish_progress(self.redis, self.prefix, jobs)
        except (RedisError, OSError) as error:
            # live progress is stale a moment later; recovery needs only SQL
            self.failures += 1
            log.warning("progress.failed", error=str(error), failures=self.failures)
            return PAUSE_AFTER_FAILURE_S
        return EVERY_S


def preview_json(preview: Preview) -> dict[str, Any]:
    """A preview as published: a WebP of a few kilobytes in base64."""
    from PIL import Image

    height, width, _ = preview.pixels.shape
    file = io.BytesIO()
    Image.fromarray(preview.pixels).save(file, "WEBP", quality=PREVIEW_QUALITY, method=0)
    data = base64.b64encode(file.getvalue()).decode()
    place = {"index": preview.index, "step": preview.step}
    return {**place, "width": width, "height": height, "media": "image/webp", "data": data}
