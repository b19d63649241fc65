"""What a batch wants of its pictures besides their recipes: its gate and its channels. They never change."""

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
    """What a batch's gate does when a job is committed, if the batch has a gate, and its channels."""

    on_commit: OnCommit | None = None
    channels: tuple[Channel, ...] = ()


NO_OPTIONS = PostprocessOptions()


class PostprocessOptionsCache:
    """The options of the batches that were asked for last, read once each. Many threads may ask."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._cached: OrderedDict[str, PostprocessOptions] = OrderedDict()
        self._lock = Lock()

    def get(self, batch_id: str | None) -> PostprocessOptions:
        """What the batch wants; nothing for a job of no batch."""
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
