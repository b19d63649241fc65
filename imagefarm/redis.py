"""Redis as the farm uses it: short-lived progress and live events. Nothing in it is needed to recover."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from imagefarm.errors import SetupError
from imagefarm.settings import Settings

PROGRESS_TTL_S = 300


def connect_redis(settings: Settings, *, timeout_s: float = 3.0) -> Redis:
    """A client that never waits longer than `timeout_s` for an answer. Raises SetupError if no Redis is configured."""
    if not settings.redis_url:
        raise SetupError("redis_url is not set: start the farm with `imagefarm up`, or set IMAGEFARM_REDIS_URL")
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


def progress_key(prefix: str, job_id: str) -> str:
    """The short-lived key with a running job's progress: JSON `{"step": 3, "steps": 8, ...}`."""
    return f"{prefix}:progress:{job_id}"


def publish(redis: Redis, prefix: str, event: dict[str, Any]) -> None:
    """Send a live event to whoever listens. Raises RedisError; callers count and go on."""
    redis.publish(events_channel(prefix), json.dumps(event, ensure_ascii=False))


def preview_key(prefix: str, job_id: str) -> str:
    """The short-lived hash with a running job's newest previews: index of the image -> JSON, as in the event."""
    return f"{prefix}:preview:{job_id}"


def publish_many(redis: Redis, prefix: str, events: Sequence[dict[str, Any]]) -> None:
    """Send live events in one go. Raises RedisError; callers count and go on."""
    pipe = redis.pipeline(transaction=False)
    for event in events:
        pipe.publish(events_channel(prefix), json.dumps(event, ensure_ascii=False))
    pipe.execute()


def publish_progress(
    redis: Redis,
    prefix: str,
    job_id: str,
    tenant_id: str,
    progress: dict[str, Any],
    *,
    previews: Sequence[dict[str, Any]] = (),
) -> None:
    """Keep a job's progress and tell the listeners. Raises RedisError; callers count and go on.

    `previews` are new small pictures: `{"index": 0, "step": 3, "width": 64, "height": 64, "media": "image/webp", "data":
    base64}`.
    """
    pipe = redis.pipeline(transaction=False)
    pipe.set(progress_key(prefix, job_id), json.dumps(progress), ex=PROGRESS_TTL_S)
    event = {"kind": "job.progress", "subject": job_id, "tenant_id": tenant_id, **progress}
    if previews:
        key = preview_key(prefix, job_id)
        pipe.hset(key, mapping={str(preview["index"]): json.dumps(preview) for preview in previews})
        pipe.expire(key, PROGRESS_TTL_S)
        event["previews"] = list(previews)
    pipe.publish(events_channel(prefix), json.dumps(event))
    pipe.execute()
