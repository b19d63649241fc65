"""The cache of prompt embeddings: each distinct prompt is encoded once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from imagefarm.errors import RenderError
from worker.families.base import Embedding

MAX_BYTES = 256 * 2**20

Encode = Callable[[str], Embedding]
EncodeMany = Callable[[Sequence[str]], list[Embedding]]
Key = tuple[str, ...]


@dataclass(slots=True)
class CacheCounts:
    """Prompts since the worker started."""

    hits: int = 0
    encoded: int = 0
    evicted: int = 0


class EmbeddingCache:
    """An LRU cache of embeddings, bounded in bytes. Pipelines may share it; the scope keeps their entries apart."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.counts = CacheCounts()
        self.nbytes = 0
        self._kept: OrderedDict[Key, Embedding] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, scope: Key, texts: Iterable[str], encode: Encode) -> dict[str, Embedding]:
        """Return the embedding of each text; unknown texts are encoded.

        `scope` is everything an embedding depends on besides the text: encoder digest, dtype, template, maximum length. Each text
        is encoded in a pass of its own, as in the pipelines; `fill` shares passes. Raises RenderError("nan_output") if the
        encoder
        returns a number that is not finite.
        """
        found = {}
        for text in dict.fromkeys(texts):
            key = (*scope, text)
            if key in self._kept:
                self._kept.move_to_end(key)
                found[text] = self._kept[key]
                self.counts.hits += 1
                continue
            embedding = encode(text)
            self.counts.encoded += 1
            if not embedding.finite():
                raise RenderError("nan_output", "the text encoder gave numbers that are not finite for this prompt")
            found[text] = replace(embedding, digest=_sha256(embedding))
            self._keep(key, found[text])
        return found

    def missing(self, scope: Key, texts: Iterable[str]) -> list[str]:
        """The texts that are not in the cache, without duplicates."""
        return [text for text in dict.fromkeys(texts) if (*scope, text) not in self._kept]

    def fill(self, scope: Key, texts: Iterable[str], encode_many: EncodeMany, *, batch_size: int) -> int:
        """Encode the texts that are not in the cache, `batch_size` per pass; return how many were encoded.

        An embedding that is not finite is not cached. `get` then encodes it alone and reports the error to the job that needs it.
        """
        unknown = self.missing(scope, texts)
        for start in range(0, len(unknown), batch_size):
            part = unknown[start : start + batch_size]
            for text, embedding in zip(part, encode_many(part), strict=True):
                self.counts.encoded += 1
                if embedding.finite():
                    self._keep((*scope, text), replace(embedding, digest=_sha256(embedding), together=len(part)))
        return len(unknown)

    def forget(self, scope: Key) -> None:
        """Drop all embeddings of a scope, for example when its model is unloaded."""
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
