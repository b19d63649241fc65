"""Kinds of images: the steps, guidance and phrases that suit common subjects, for any model."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from imagefarm.model_entry import ModelEntry

FILE = Path(__file__).with_name("kinds.toml")
Slot = Literal["setting", "light", "camera", "finish"]
SLOTS: tuple[Slot, ...] = ("setting", "light", "camera", "finish")
"""The aspects of a photo besides the subject, in the order in which prompts name them."""
Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of image. `steps` and `guidance` multiply a model's defaults; `phrases` are by language and slot."""

    name: str
    title: str
    title_zh: str
    words: tuple[str, ...]
    steps: float
    guidance: float
    negative: str
    negative_zh: str
    phrases: dict[str, dict[str, tuple[str, ...]]]

    def steps_for(self, entry: ModelEntry) -> int:
        """Steps that suit this kind on that model, within its limit."""
        return max(1, min(entry.limits.max_steps, round(entry.defaults.steps * self.steps)))

    def guidance_for(self, entry: ModelEntry) -> float:
        """Guidance that suits this kind on that model. A model without guidance stays without it."""
        return round(entry.defaults.guidance * self.guidance, 1)

    def negative_in(self, language: Language) -> str:
        """The negative prompt of this kind."""
        return self.negative_zh if language == "zh" else self.negative


@cache
def kinds() -> dict[str, Kind]:
    """All kinds, by name, in the order of the file."""
    return {name: _kind(name, fields) for name, fields in _data()["kinds"].items()}


@cache
def said_words(language: Language) -> dict[str, tuple[str, ...]]:
    """The words that show that a prompt covers a slot; the enhancer's own phrases are among them."""
    known: dict[str, list[str]] = _data()["said"][language]
    return {
        slot: (*known[slot], *(text.casefold() for kind in kinds().values() for text in kind.phrases[language].get(slot, ())))
        for slot in SLOTS
    }


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text("utf-8"))


def _kind(name: str, fields: dict[str, Any]) -> Kind:
    phrases = {lang: {slot: tuple(texts) for slot, texts in fields.get(lang, {}).items()} for lang in ("en", "zh")}
    return Kind(
        name=name,
        title=fields["title"],
        title_zh=fields["title_zh"],
        words=tuple(fields["words"]),
        steps=float(fields["steps"]),
        guidance=float(fields["guidance"]),
        negative=fields["negative"],
        negative_zh=fields["negative_zh"],
        phrases=phrases,
    )
