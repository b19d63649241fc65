"""A batch's quality gate and channels, cached in the worker. They never change."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from sqlalchemy import select

from imagefarm.imaging.channels import Channel
from imagefarm.settings import Settings
from imagefarm.store import Store
from imagefarm.store.models import Batch
from scheduler.batches.review.apply_quality_gate import GateOnCommit
from scheduler.batches.table.quality_gate import QualityGate
from scheduler.queue.finish import OnCommit

MAX_CACHED = 64


@dataclass(frozen=True, slots=True)
class PostprocessOptions:
    """What a batch's quality gate does at a commit, if the batch has one, and the batch's channels."""

    on_commit: OnCommit | None = None
    channels: tuple[Channel, ...] = ()


NO_OPTIONS = PostprocessOptions()


class PostprocessOptionsCache:
    """The options of the most recent batches, read once each. Thread-safe."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._cached: OrderedDict[str, PostprocessOptions] = OrderedDict()
        self._lock = Lock()

    def get(self, batch_id: str | None) -> PostprocessOptions:
        """The batch's options; empty for a job without a batch."""
        if batch_id is None:
            return NO_OPTIONS
        with self._lock:
            if (found := self._cached.get(batch_id)) is not None:
                self._cached.move_to_end(batch_id)
                return found
        with self._store.read() as session:
            options = session.scalar(select(Batch.options).where(Batch.id == batch_id)) or {}
        gate = options.get("gate")
        result = PostprocessOptions(
            on_commit=None if gate is None else GateOnCommit(batch_id, QualityGate.model_validate(gate), self._settings),
            channels=tuple(Channel.model_validate(channel) for channel in options.get("channels") or ()),
        )
        with self._lock:
            self._cached[batch_id] = result
            while len(self._cached) > MAX_CACHED:
                self._cached.popitem(last=False)
        return result
