"""The cache of prompt embeddings: every distinct prompt is encoded once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from imagefarm.errors import RenderError
from worker.families.base import Embedding

MAX_BYTES = 256 * 2**20
ENCODED_TOGETHER = 8
"""Prompts of one encoder pass at most: the encoder pads each to full length, so more would only cost memory."""

Encode = Callable[[Sequence[str]], list[Embedding]]
Key = tuple[str, ...]


@dataclass(slots=True)
class CacheCounts:
    """Counted since the worker started, in prompts; `passes` in encoder passes."""

    hits: int = 0
    misses: int = 0
    encoded: int = 0
    passes: int = 0
    evicted: int = 0


class EmbeddingCache:
    """Least recently used embeddings, bounded by bytes. May be shared by pipelines: the scope tells them apart."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.counts = CacheCounts()
        self.nbytes = 0
        self._kept: OrderedDict[Key, Embedding] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, scope: Key, texts: Iterable[str], encode: Encode) -> dict[str, Embedding]:
        """Return the embedding of each text; those unknown are encoded together.

        `scope` is all that decides an embedding besides the text: encoder digest, dtype, template, longest length. Raises
        RenderError("nan_output") if the encoder gives a number that is not finite.
        """
        wanted = list(dict.fromkeys(texts))
        found = {text: self._kept[(*scope, text)] for text in wanted if (*scope, text) in self._kept}
        for text in found:
            self._kept.move_to_end((*scope, text))
        missing = [text for text in wanted if text not in found]
        self.counts.hits += len(found)
        self.counts.misses += len(missing)
        for first in range(0, len(missing), ENCODED_TOGETHER):
            together = missing[first : first + ENCODED_TOGETHER]
            for text, embedding in zip(together, encode(together), strict=True):
                if not embedding.finite():
                    raise RenderError("nan_output", "the text encoder gave numbers that are not finite for this prompt")
                found[text] = replace(embedding, digest=_sha256(embedding))
                self._keep((*scope, text), found[text])
            self.counts.encoded += len(together)
            self.counts.passes += 1
        return found

    def forget(self, scope: Key) -> None:
        """Drop all embeddings of a scope, as when its model leaves the device."""
        for key in [key for key in self._kept if key[: len(scope)] == scope]:
            self.nbytes -= self._kept.pop(key).nbytes

    def _keep(self, key: Key, embedding: Embedding) -> None:
        if embedding.nbytes > self.max_bytes:
            return
        self._kept[key] = embedding
        self.nbytes += embedding.nbytes
        while self.nbytes > self.max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self.nbytes -= oldest.nbytes
            self.counts.evicted += 1


def _sha256(embedding: Embedding) -> str:
    digest = hashlib.sha256()
    for tensor in (embedding.tokens, embedding.pooled):
        if tensor is not None:
            digest.update(tensor.contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
