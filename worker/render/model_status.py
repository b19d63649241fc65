"""The status of models on this worker (present, missing, loaded, broken), reported to the store for pages and other workers."""

from __future__ import annotations

from imagefarm.errors import RenderError
from imagefarm.logs import get_logger
from imagefarm.model_entry import ModelEntry
from imagefarm.store.models import Model
from scheduler.queue.retry import Failure
from scheduler.queue.workers import load_micro_batch_limits, report_insufficient_memory, report_model, save_micro_batch_limits
from worker.models.loading import LoadedPipeline
from worker.render.context import WorkerContext
from worker.weights.model_files import find_files

log = get_logger(__name__)

UNAVAILABLE_STATES = frozenset({"missing", "invalid"})


def scan_models(context: WorkerContext) -> None:
    """Scan the files of every model that this worker serves, and report missing or broken ones, one line each.

    The farm starts all the same. Jobs of such a model fail with the same message.
    """
    with context.store.read() as session:
        known = {row.name: (row.state, row.reason) for row in session.query(Model)}
    for name in context.identity.serves:
        entry = context.catalogue.get(name)
        try:
            find_files(entry, context.catalogue)
        except RenderError as error:
            state = _state(context, entry)
            if known.get(name) != (state, error.detail):
                # a hub model that was not fetched is normal; a folder named in the catalogue should exist
                log_at_level = log.info if context.catalogue.local_path(entry.source) is None else log.warning
                log_at_level("model.unavailable", model=name, state=state, reason=error.detail)
                report_model(context.store, name, state, reason=error.detail)
        else:
            if known.get(name, ("unknown", ""))[0] in UNAVAILABLE_STATES:
                report_model(context.store, name, "unknown")


def report_loaded(context: WorkerContext, pipeline: LoadedPipeline) -> None:
    """Report that a model was loaded."""
    facts = pipeline.facts | {"bytes": pipeline.bytes}
    report_model(context.store, pipeline.name, "ready", digest=pipeline.digest, facts=facts, load_s=pipeline.load_s)
    report_insufficient_memory(context.store, context.identity.id, pipeline.name)


def restore_limits(context: WorkerContext, pipeline: LoadedPipeline) -> None:
    """Restore what a worker with the same device has learned about this model's memory."""
    kept = load_micro_batch_limits(context.store, pipeline.name, pipeline.profile)
    pipeline.denoise_limits.restore(kept.get("denoise", {}))
    pipeline.decode_limits.restore(kept.get("decode", {}))


def save_limits(context: WorkerContext, pipeline: LoadedPipeline) -> None:
    """Save what was learned about a model's memory, if there is anything new."""
    limits = (pipeline.denoise_limits, pipeline.decode_limits)
    if any(each.changed for each in limits):
        save_micro_batch_limits(
            context.store,
            pipeline.name,
            pipeline.profile,
            {"denoise": pipeline.denoise_limits.as_data(), "decode": pipeline.decode_limits.as_data()},
        )
        for each in limits:
            each.changed = False


def report_load_failed(context: WorkerContext, name: str, failure: Failure) -> None:
    """Report that a model could not be loaded. Out of memory concerns this worker only: another may have more."""
    if failure.code == "model_invalid":
        report_model(context.store, name, _state(context, context.catalogue.get(name)), reason=failure.detail)
    if failure.code == "oom":
        report_insufficient_memory(context.store, context.identity.id, name, failure.detail.rstrip("."))


def _state(context: WorkerContext, entry: ModelEntry) -> str:
    """`missing` if the model's folder or file does not exist, otherwise `invalid`."""
    path = context.catalogue.local_path(entry.source)
    return "missing" if path is None or not path.exists() else "invalid"
