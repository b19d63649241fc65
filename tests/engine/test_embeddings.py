"""Every distinct prompt is encoded once, within the bytes the cache may take."""

from __future__ import annotations

import pytest
import torch

from imagefarm.errors import RenderError
from tests.engine.jobs import SmallModels, finish
from worker.embeddings import EmbeddingCache
from worker.engine.engine import StepEngine
from worker.families.base import Embedding

SCOPE = ("encoder", "float32", "512")


def encode(text: str) -> Embedding:
    return Embedding(torch.full((len(text), 4), float(len(text))))


def test_a_thousand_rows_of_fifty_prompts_are_encoded_fifty_times() -> None:
    cache = EmbeddingCache()
    for row in range(1000):
        text = f"prompt {row % 50}"
        assert torch.equal(cache.get(SCOPE, [text, text], encode)[text].tokens, encode(text).tokens)
    assert (cache.counts.encoded, cache.counts.hits, len(cache)) == (50, 950, 50)


def test_scopes_are_apart() -> None:
    cache = EmbeddingCache()
    for scope in (SCOPE, ("encoder", "bfloat16", "512"), ("other", "float32", "512")):
        cache.get(scope, ["a"], encode)
    assert cache.counts.encoded == 3
    cache.forget(("encoder",))
    assert len(cache) == 1
    assert cache.nbytes == encode("a").nbytes


def test_bytes_are_bounded_and_the_least_recently_used_leave() -> None:
    one = encode("1234567890").nbytes
    cache = EmbeddingCache(max_bytes=3 * one)
    for text in ("aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc", "aaaaaaaaaa", "dddddddddd"):
        cache.get(SCOPE, [text], encode)
    assert cache.nbytes == 3 * one
    assert cache.counts.evicted == 1
    cache.get(SCOPE, ["aaaaaaaaaa"], encode)
    assert cache.counts.hits == 2
    cache.get(SCOPE, ["bbbbbbbbbb"], encode)
    assert cache.counts.encoded == 5
    cache.get(SCOPE, ["x" * 100], encode)  # larger than the cache: given out, not kept
    assert cache.nbytes <= 3 * one


def test_numbers_that_are_not_finite_are_not_kept() -> None:
    cache = EmbeddingCache()
    with pytest.raises(RenderError, match="text encoder") as caught:
        cache.get(SCOPE, ["a"], lambda _: Embedding(torch.tensor([[float("nan")]])))
    assert caught.value.code == "nan_output"
    assert len(cache) == 0


def test_jobs_of_one_prompt_share_its_encoding(models: SmallModels) -> None:
    pipeline = models.fresh("tiny-z-image")
    for seed in range(3):
        engine = StepEngine(pipeline, max_images=8)  # the cache outlives the engine
        engine.add(models.job("tiny-z-image", seed=seed, steps=1, guidance=2.0, negative_prompt="dark", count=2))
        engine.add(models.job("tiny-z-image", seed=seed, steps=1, prompt="a lamp"))
        ended = finish(engine)
        digests = {image.facts["embedding_sha256"] for job in ended.values() for image in job.images}  # type: ignore[union-attr]
        assert len(digests) == 2
    assert (pipeline.embeddings.counts.encoded, pipeline.embeddings.counts.hits) == (3, 6)
