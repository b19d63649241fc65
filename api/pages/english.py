"""English for names that are not English words themselves: the kinds of events, the fields of a recipe."""

NAMES: dict[str, str] = {
    "job.submitted": "Submitted",
    "job.claimed": "Claimed",
    "job.succeeded": "Stored",
    "job.failed": "Failed",
    "job.cancelled": "Cancelled",
    "job.retried": "Queued again",
    "job.requeued": "Back in the queue",
    "job.released": "Given back",
    "job.held": "Held",
    "batch.held": "Held",
    "job.unheld": "Let go",
    "batch.released": "Let go",
    "job.dropped": "Dropped",
    "negative_prompt": "negative prompt",
    "init_image": "init image",
    "loras": "LoRAs",
    "last 1h": "last hour",
    "last 24h": "last 24 hours",
    "last 7d": "last 7 days",
}
