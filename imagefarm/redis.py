"""The farm's use of Redis: short-lived progress and live events. Recovery does not depend on either."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from imagefarm.errors import ConfigurationError
from imagefarm.settings import Settings

PROGRESS_TTL_S = 300
FOR_WORKERS = frozenset({"job.cancelled", "worker.command", "bulk.changed"})
"""Kinds of events that workers act on."""


def connect_redis(settings: Settings, *, timeout_s: float = 3.0) -> Redis:
    """A client with a response timeout of `timeout_s`. Raises ConfigurationError if no Redis is configured."""
    if not settings.redis_url:
        raise ConfigurationError("redis_url is not set: start the farm with `imagefarm up`, or set IMAGEFARM_REDIS_URL")
    return Redis.from_url(
        settings.redis_url,
        socket_timeout=timeout_s,
        socket_connect_timeout=min(timeout_s, 3.0),
        health_check_interval=10,
        retry=Retry(NoBackoff(), 1),
        decode_responses=True,
    )


def events_channel(prefix: str) -> str:
    """The pub/sub channel of live events: JSON objects with `kind`, `subject`, `tenant_id` and more."""
    return f"{prefix}:events"


def workers_channel(prefix: str) -> str:
    """The pub/sub channel of the events that workers act on.

    It is separate because most events are the workers' own progress, and receiving an event costs as much as publishing it.
    """
    return f"{prefix}:workers"


def progress_key(prefix: str, job_id: str) -> str:
    """The short-lived key with a running job's progress: JSON `{"step": 3, "steps": 8, ...}`."""
    return f"{prefix}:progress:{job_id}"


def publish(redis: Redis, prefix: str, event: dict[str, Any]) -> None:
    """Publish a live event. Raises RedisError; callers count it and continue."""
    publish_many(redis, prefix, [event])


def preview_key(prefix: str, job_id: str) -> str:
    """The short-lived hash with a running job's newest previews: image index -> JSON, as in the event."""
    return f"{prefix}:preview:{job_id}"


def publish_many(redis: Redis, prefix: str, events: Sequence[dict[str, Any]]) -> None:
    """Publish live events in one round trip. Raises RedisError; callers count it and continue."""
    pipe = redis.pipeline(transaction=False)
    for event in events:
        text = json.dumps(event, ensure_ascii=False)
        pipe.publish(events_channel(prefix), text)
        if event["kind"] in FOR_WORKERS:
            pipe.publish(workers_channel(prefix), text)
    pipe.execute()


@dataclass(frozen=True, slots=True)
class JobProgress:
    """A job's progress: `{"step": 3, "steps": 8, ...}`, and new previews of its images.

    `previews` are small images: `{"index": 0, "step": 3, "width": 64, "height": 64, "media": "image/webp", "data": base64}`.
    """

    job_id: str
    tenant_id: str
    progress: dict[str, Any]
    previews: Sequence[dict[str, Any]] = ()


def publish_progress(redis: Redis, prefix: str, jobs: Iterable[JobProgress]) -> None:
    """Store and publish the progress of jobs, in one round trip. Raises RedisError; callers count it and continue."""
    pipe = redis.pipeline(transaction=False)
    for job in jobs:
        pipe.set(progress_key(prefix, job.job_id), json.dumps(job.progress), ex=PROGRESS_TTL_S)
        event = {"kind": "job.progress", "subject": job.job_id, "tenant_id": job.tenant_id, **job.progress}
        if job.previews:
            key = preview_key(prefix, job.job_id)
            pipe.hset(key, mapping={str(preview["index"]): json.dumps(preview) for preview in job.previews})
            pipe.expire(key, PROGRESS_TTL_S)
            event["previews"] = list(job.previews)
        pipe.publish(events_channel(prefix), json.dumps(event))
    pipe.execute()
