"""The enhancer: adds only what is unsaid, never touches what was written, and says the same tomorrow."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagefarm.catalogue import Catalogue
from imagefarm.prompts.enhance import CHINESE, enhance
from imagefarm.prompts.kinds import SLOTS, kinds
from imagefarm.recipe import MAX_PROMPT_CHARS, JobRequest


@pytest.mark.parametrize(
    ("prompt", "kind", "language"),
    [
        ("a red mug", "packshot", "en"),
        ("a slice of cake", "food", "en"),
        ("gold ring with a pearl", "jewellery", "en"),
        ("running shoes", "fashion", "en"),
        ("一枚钻石戒指", "jewellery", "zh"),
        ("一块巧克力蛋糕", "food", "zh"),
        ("a string quartet", "packshot", "en"),  # not a ring
    ],
)
def test_the_kind_and_the_language_are_read_from_the_prompt(prompt: str, kind: str, language: str) -> None:
    found = enhance(prompt)
    assert (found.kind, found.language) == (kind, language)
    assert [addition.slot for addition in found.additions] == list(SLOTS)
    assert all(bool(CHINESE.search(addition.text)) == (language == "zh") for addition in found.additions)


def test_what_is_said_is_not_said_again() -> None:
    slots = {addition.slot for addition in enhance("a red mug on a white background, soft light").additions}
    assert slots == {"camera", "finish"}
    assert {addition.slot for addition in enhance("白色背景上的红色马克杯，柔光").additions} == {"camera", "finish"}


@pytest.mark.parametrize("kind", [name for name in kinds() if name != "draft"])
@pytest.mark.parametrize("prompt", ["Thing", "东西"])
def test_what_was_added_is_said(prompt: str, kind: str) -> None:
    for variant in range(3):
        assert enhance(enhance(prompt, kind=kind, variant=variant).enhanced).additions == ()


def test_a_full_prompt_is_left_alone() -> None:
    prompt = "a mug, white background, softbox light, 85 mm lens, sharp"
    assert enhance(prompt).additions == ()
    assert enhance(prompt).enhanced == prompt


def test_a_variant_gives_other_words_and_the_same_one_the_same() -> None:
    first, again, other = enhance("a mug"), enhance("a mug"), enhance("a mug", variant=1)
    assert first == again
    assert all(one.text != two.text for one, two in zip(first.additions, other.additions, strict=True))
    assert enhance("a mug", variant=3) == first


def test_a_chosen_kind_is_taken_and_a_draft_is_no_subject() -> None:
    assert enhance("a red mug", kind="food").kind == "food"
    assert enhance("a red mug", kind="draft").kind == "packshot"
    assert enhance("a red mug", kind="no such kind").kind == "packshot"


@settings(max_examples=150, deadline=None)
@given(st.text(min_size=1, max_size=MAX_PROMPT_CHARS), st.integers(0, 99))
def test_whatever_was_written_stays_in_front_and_fits(prompt: str, variant: int) -> None:
    found = enhance(prompt, variant=variant)
    assert found.enhanced.startswith(prompt.rstrip(" \t\r\n,.;，。；、"))
    assert len(found.enhanced) <= max(MAX_PROMPT_CHARS, len(prompt))


def test_every_kind_is_complete_in_both_languages_and_suits_every_model(catalogue: Catalogue) -> None:
    for kind in kinds().values():
        assert kind.title
        assert kind.title_zh
        if kind.name != "draft":
            for language in ("en", "zh"):
                assert set(kind.phrases[language]) == set(SLOTS)
                assert all(len(set(texts)) == 3 for texts in kind.phrases[language].values())
            assert kind.negative
            assert kind.negative_zh
        for entry in catalogue.entries.values():
            steps, guidance = kind.steps_for(entry), kind.guidance_for(entry)
            catalogue.resolve(JobRequest(prompt="x", model=entry.name, steps=steps, guidance=guidance))
