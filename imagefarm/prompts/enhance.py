"""The enhancer: suggests the light, setting, camera and finish that a prompt leaves out. Rules and data only, offline.

The prompt's own words stay unchanged and in front. The same prompt always gets the same suggestion.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from imagefarm.prompts.kinds import SLOTS, Kind, Language, Slot, kinds, said_words
from imagefarm.recipe import MAX_PROMPT_CHARS

CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
FALLBACK = "packshot"
SENTENCE_ENDS = " \t\r\n,.;，。；、"


@dataclass(frozen=True, slots=True)
class Addition:
    """A phrase that could be added, and its slot."""

    slot: Slot
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """The possible additions to a prompt; empty if the prompt covers every slot."""

    prompt: str
    language: Language
    kind: str
    additions: tuple[Addition, ...]
    negative_prompt: str

    @property
    def enhanced(self) -> str:
        """The prompt with every addition."""
        return joined(self.prompt, *(addition.text for addition in self.additions))


def enhance(prompt: str, *, kind: str | None = None, variant: int = 0) -> Suggestion:
    """Suggest additions to `prompt`; another `variant` gives other phrases. An unknown `kind` is guessed from the prompt."""
    language: Language = "zh" if CHINESE.search(prompt) else "en"
    chosen = kinds().get(kind or "") or guess_kind(prompt)
    if not chosen.phrases[language]:  # the kind `draft` describes a speed, not a subject
        chosen = guess_kind(prompt)
    text = prompt.casefold()
    additions: list[Addition] = []
    for slot in SLOTS:
        if any(_says(text, word) for word in said_words(language)[slot]):
            continue
        phrases = chosen.phrases[language].get(slot, ())
        if not phrases:
            continue
        phrase = phrases[(zlib.crc32(f"{slot}:{text}".encode("utf-8", "replace")) + variant) % len(phrases)]
        if len(joined(prompt, *(one.text for one in additions), phrase)) <= MAX_PROMPT_CHARS:
            additions.append(Addition(slot, phrase))
    return Suggestion(
        prompt=prompt,
        language=language,
        kind=chosen.name,
        additions=tuple(additions),
        negative_prompt=chosen.negative_in(language),
    )


def joined(prompt: str, *phrases: str) -> str:
    """The prompt and these phrases as one list in the prompt's own script; without phrases the prompt itself."""
    if not phrases:
        return prompt
    comma = "，" if CHINESE.search(prompt) else ", "
    return comma.join((prompt.rstrip(SENTENCE_ENDS), *phrases))


def guess_kind(prompt: str) -> Kind:
    """The kind with the most matching words in the prompt; the packshot if none matches."""
    text = prompt.casefold()
    found = {kind.name: sum(_says(text, word) for word in kind.words) for kind in kinds().values()}
    best = max(found, key=lambda name: found[name])
    return kinds()[best if found[best] else FALLBACK]


def _says(text: str, word: str) -> bool:
    if CHINESE.search(word):
        return word in text
    return re.search(rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])", text) is not None
