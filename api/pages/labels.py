"""The names that pages give to states, kinds of events, fields of a recipe, scopes: one table for both languages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask
from flask_babel import lazy_gettext as _

Labels = Mapping[str, Any]
"""Lazy texts by name. Each is translated when it is shown."""

STATES: Labels = {
    "held": _("Held"),
    "queued": _("Queued"),
    "running": _("Running"),
    "succeeded": _("Succeeded"),
    "failed": _("Failed"),
    "cancelled": _("Cancelled"),
    # batches
    "validating": _("Validating"),
    "paused": _("Paused"),
    "done": _("Done"),
    # workers
    "starting": _("Starting"),
    "ready": _("Ready"),
    "busy": _("Busy"),
    "draining": _("Draining"),
    "quarantined": _("Quarantined"),
    "offline": _("Offline"),
    # models
    "unknown": _("Not checked"),
    "missing": _("Not installed"),
    "invalid": _("Damaged"),
    # messages to webhooks
    "waiting": _("Waiting"),
    "delivered": _("Delivered"),
    "dead": _("Given up"),
}
HINDRANCES: Labels = {"missing": _("not installed"), "invalid": _("damaged"), "no worker": _("no worker")}
"""Why a model cannot be used, shown after its name."""
EVENTS: Labels = {
    "job.submitted": _("Submitted"),
    "job.reused": _("Picture reused"),
    "job.claimed": _("Claimed"),
    "job.succeeded": _("Succeeded"),
    "job.failed": _("Failed"),
    "job.cancelled": _("Cancelled"),
    "job.retried": _("Queued again"),
    "job.requeued": _("Returned to the queue"),
    "job.released": _("Returned by the worker"),
    "job.held": _("Held"),
    "job.hold_released": _("Released"),
    "job.dropped": _("Dropped"),
    "image.stored": _("Picture stored"),
    "image.judged": _("Judged by the quality gate"),
    "image.picked": _("Picked"),
    "batch.submitted": _("Batch submitted"),
    "batch.held": _("Batch held"),
    "batch.approved": _("Batch approved"),
    "batch.released": _("Batch released"),
    "batch.paused": _("Batch paused"),
    "batch.resumed": _("Batch resumed"),
    "batch.retried": _("Batch retried"),
    "batch.reopened": _("Batch reopened"),
    "batch.stopped": _("Batch stopped"),
    "batch.cancelled": _("Batch cancelled"),
    "batch.abandoned": _("Batch abandoned"),
    "batch.done": _("Batch done"),
    "batch.delivery": _("Delivery requested"),
    "batch.delivered": _("Batch delivered"),
    "batch.undelivered": _("Batch delivery failed"),
    "worker.started": _("Worker started"),
    "worker.offline": _("Worker offline"),
    "worker.ready": _("Worker resumed"),
    "worker.draining": _("Worker draining"),
    "worker.quarantined": _("Worker quarantined"),
    "worker.command": _("Worker command"),
    "key.created": _("Key created"),
    "key.rotated": _("Key replaced"),
    "key.revoked": _("Key revoked"),
    "tenant.created": _("Tenant created"),
    "tenant.limited": _("Tenant limits changed"),
    "user.created": _("User created"),
    "user.password": _("Password changed"),
    "user.disabled": _("User disabled"),
    "user.signed_in": _("User signed in"),
    "webhook.created": _("Webhook created"),
    "webhook.removed": _("Webhook removed"),
    "asset.stored": _("Asset stored"),
    "asset.collected": _("Unused asset removed"),
    "sweep.clock": _("Database clock jumped"),
    "sweep.gap": _("Sweep was late"),
    "backlog.drift": _("Backlog counts corrected"),
    "bulk.changed": _("Many jobs changed"),
}
OUTCOMES: Labels = {
    "succeeded": _("Succeeded"),
    "failed": _("Failed"),
    "retry": _("Failed, retried"),
    "crashed": _("Crashed"),
    "expired": _("Lease expired"),
    "released": _("Returned to the queue"),
    "cancelled": _("Cancelled"),
}
"""Outcomes of an attempt."""
LIMITS: Labels = {
    "queued": _("Queued jobs"),
    "running": _("Running jobs"),
    "images_per_day": _("Pictures per day"),
    "pixels": _("Pixels per picture"),
    "steps": _("Steps"),
}
FIELDS: Labels = {
    "prompt": _("Prompt"),
    "negative_prompt": _("Negative prompt"),
    "model": _("Model"),
    "width": _("Width"),
    "height": _("Height"),
    "steps": _("Steps"),
    "guidance": _("Guidance"),
    "sampler": _("Sampler"),
    "seed": _("Seed"),
    "count": _("Pictures"),
    "strength": _("Strength of change"),
    "init_image": _("Starting picture"),
    "init_image_file": _("Starting picture"),
    "subject": _("Product"),
    "mask": _("Mask"),
    "loras": _("LoRAs"),
    "upscale": _("Upscale"),
    "format": _("Format"),
    "quality": _("Quality"),
    # the filter of the job list
    "batch": _("Batch"),
    "tenant": _("Tenant"),
    "worker": _("Worker"),
    "text": _("Prompt"),
    "custom_id": _("Custom ID"),
    "label": _("Label"),
    # forms
    "table": _("Table"),
    "template": _("Prompt template"),
    "columns": _("Columns"),
    "canary": _("Canary rows"),
    "variants": _("Variants"),
    "name_pattern": _("File names"),
    "labels": _("Label columns"),
    "name": _("Name"),
    "password": _("Password"),
    "role": _("Role"),
    "scopes": _("Permissions"),
    "expires_in": _("Expires after"),
    "url": _("URL"),
    "kinds": _("Notify on"),
    **{f"limits.{name}": text for name, text in LIMITS.items()},
}
"""Fields of recipes, filters and forms."""
SCOPES: Labels = {
    "submit": _("submit and cancel jobs and batches"),
    "read": _("view the jobs and pictures of its tenant"),
    "admin": _("manage the keys and users of its tenant"),
    "farm": _("do everything, for all tenants"),
}
LIFETIMES: Labels = {
    "": _("never"),
    "2592000": _("30 days"),
    "7776000": _("90 days"),
    "31536000": _("1 year"),
}
ROLES: Labels = {
    "viewer": _("view what the tenant has"),
    "member": _("also submit, cancel and retry"),
    "admin": _("also manage the tenant's keys and users"),
    "operator": _("do everything, for all tenants"),
}
HOOKS: Labels = {
    "job.succeeded": _("job succeeded"),
    "job.failed": _("job failed"),
    "job.cancelled": _("job cancelled"),
    "batch.done": _("batch done"),
    "batch.cancelled": _("batch cancelled"),
    "batch.stopped": _("batch stopped after too many failures"),
    "batch.delivered": _("batch delivered to its bucket"),
    "batch.undelivered": _("batch delivery to its bucket failed"),
}
"""Events that a webhook can be notified of."""
SHAPES: Labels = {
    "square": _("square"),
    "portrait": _("portrait"),
    "landscape": _("landscape"),
    "tall": _("tall"),
    "wide": _("wide"),
}
PERIODS: Labels = {
    "hour": _("Hour"),
    "day": _("Day"),
    "week": _("Week"),
    "1h": _("Last hour"),
    "24h": _("Last 24 hours"),
    "7d": _("Last 7 days"),
}
SPANS: Labels = {
    "waiting": _("Waiting"),
    "loading and sharing": _("Loading, sharing the device"),
    "text": _("Prompt encoding"),
    "steps": _("Denoising"),
    "decoding": _("Decoding"),
    "file": _("Writing files"),
}
"""Phases of a job."""
VERDICTS: Labels = {
    "identical": _("Replay: every pixel is identical."),
    "near": _("Replay: visually identical."),
    "different": _("Replay: the picture is different."),
    "missing": _("Replay: the original pictures no longer exist."),
}
DIFFERENCES: Labels = {
    "the recipe": _("recipe"),
    "the model's weights": _("model weights"),
    "the device": _("device"),
    "the number format": _("number format"),
    "the version of torch": _("version of torch"),
    "the version of diffusers": _("version of diffusers"),
    "the version of transformers": _("version of transformers"),
    "the host": _("host"),
    "the images that shared its forward passes": _("pictures in the same micro-batch"),
    "the images that were decoded with it": _("pictures decoded together"),
}
"""The differences between the original and a replay."""
FOUND_BY: Labels = {
    "file": _("Found: this exact file was made here."),
    "pixels": _("Found: the pixels match a picture made here."),
    "metadata": _("The metadata names a job of this farm, but the pixels differ."),
}
LABELS: Mapping[str, Labels] = {
    "state": STATES,
    "hindrance": HINDRANCES,
    "event": EVENTS,
    "outcome": OUTCOMES,
    "field": FIELDS,
    "scope": SCOPES,
    "role": ROLES,
    "lifetime": LIFETIMES,
    "limit": LIMITS,
    "hook": HOOKS,
    "shape": SHAPES,
    "period": PERIODS,
    "span": SPANS,
    "verdict": VERDICTS,
    "difference": DIFFERENCES,
    "found_by": FOUND_BY,
}


def init_app(app: Flask) -> None:
    """Give templates the filter `name|label("event")`."""
    app.jinja_env.filters["label"] = label


def label(name: str, of: str) -> str:
    """The label of `name` in the reader's language; a name without a label is shown as it is."""
    return str(LABELS[of].get(name, name))
