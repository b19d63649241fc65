"""Every distinct prompt is encoded once, within the bytes the cache may take."""

from __future__ import annotations

import pytest
import torch

from imagefarm.errors import RenderError
from tests.worker.model_jobs import SmallModels, finish
from worker.engine.engine import StepEngine
from worker.families.base import Embedding
from worker.models.embeddings import EmbeddingCache

SCOPE = ("encoder", "float32", "512")


def encode(text: str) -> Embedding:
    return Embedding(torch.full((len(text), 4), float(len(text))))


def test_a_thousand_rows_of_fifty_prompts_are_encoded_fifty_times() -> None:
    cache = EmbeddingCache()
    for row in range(1000):
        text = f"prompt {row % 50}"
        assert torch.equal(cache.get(SCOPE, [text, text], encode)[text].tokens, encode(text).tokens)
    assert (cache.counts.encoded, cache.counts.hits, len(cache)) == (50, 950, 50)


def test_a_thousand_rows_of_fifty_prompts_run_the_real_encoder_fifty_times(models: SmallModels) -> None:
    pipeline, passes = models.fresh("tiny-z-image"), list[int]()
    engine = StepEngine(pipeline, max_images=16)
    pipeline.family.pipe.text_encoder.register_forward_pre_hook(
        lambda _module, _args, named: passes.append(len(named["input_ids"])), with_kwargs=True
    )
    waiting = [
        models.job("tiny-z-image", prompt=f"prompt {row % 50}", seed=row, width=32, height=32, steps=1) for row in range(1000)
    ]
    while waiting:
        for _ in range(engine.room):
            if waiting:
                engine.add(waiting.pop())
        assert engine.step().failed == []
    assert passes == [1] * 50
    assert (pipeline.embeddings.counts.encoded, pipeline.embeddings.counts.hits) == (50, 950)


def test_prompts_that_share_a_pass_have_the_bits_of_their_own(models: SmallModels) -> None:
    """On the CPU in float32. Elsewhere it is not promised: the audit says how many shared the pass."""
    texts = [f"prompt {number} " * (1 + 3 * number) for number in range(11)]
    for name in ("tiny-z-image", "demo"):
        pipeline, passes = models.fresh(name), list[int]()
        alone = {text: pipeline.family.encode(text) for text in texts}
        pipeline.family.pipe.text_encoder.register_forward_pre_hook(
            lambda _module, _args, named, passes=passes: passes.append(len(named["input_ids"])), with_kwargs=True
        )
        engine = StepEngine(pipeline, max_images=16, text_encoder_batch_size=4)
        jobs = [models.job(name, prompt=text, seed=1, steps=1) for text in texts]
        engine.encode_ahead(jobs)
        assert passes == [4, 4, 3]
        for job in jobs:
            engine.add(job)
        ended = finish(engine)
        assert passes == [4, 4, 3]
        assert [ended[job.id].images[0].facts["encoded_together"] for job in jobs] == [4] * 8 + [3] * 3  # type: ignore[union-attr]
        for text, embedding in pipeline.embeddings.get(engine._scope(), texts, pipeline.family.encode).items():
            assert torch.equal(embedding.tokens, alone[text].tokens)


def test_a_prompt_that_spoils_a_shared_pass_fails_only_its_job(models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = models.fresh("tiny-z-image")
    written = pipeline.family._written  # type: ignore[attr-defined]

    def picky(text: str) -> str:
        if "bad" in text:
            raise ValueError("no such token")
        return written(text)  # type: ignore[no-any-return]

    monkeypatch.setattr(pipeline.family, "_written", picky)
    engine = StepEngine(pipeline, max_images=8, text_encoder_batch_size=8)
    good, bad = models.job("tiny-z-image", steps=1), models.job("tiny-z-image", prompt="bad", steps=1)
    engine.encode_ahead([good, bad])
    engine.add(good)
    with pytest.raises(RenderError, match="no such token"):
        engine.add(bad)
    assert list(finish(engine)) == [good.id]


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
