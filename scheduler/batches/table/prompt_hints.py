"""Hints about a template: syntax of other programs that imagefarm renders as plain words."""

from __future__ import annotations

import re
from collections.abc import Iterable

from imagefarm.errors import FieldError

MAX_SHOWN = 40
CHOICE = re.compile(r"(?<!\{)\{[^{}%#|]*\|[^{}]*\}(?!\})")
WEIGHT = re.compile(r"[(\[][^()\[\]:]{0,200}[^\d\s()\[\]:]\s*:\s*(?:\d?\.\d+|\d)\s*[)\]]")
NETWORK = re.compile(r"<(?:lora|lyco|lycoris|hypernet|embedding):[^<>]*>", re.IGNORECASE)
WILDCARD = re.compile(r"(?<!\w)__[\w/-]+__(?!\w)")
FIELD = re.compile(r"(?<![{$])\{\s*(\w+)\s*\}(?!\})|\$\{\s*(\w+)\s*\}|(?<!%)%(\w+)%")
EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
MARKS = (
    (
        CHOICE,
        "is not a choice here",
        'send them as a variant: variants={"name": ["a", "b"]}, and write {{ name }}',
    ),
    (WEIGHT, "gives no weight here", "take the brackets and the number out"),
    (NETWORK, "loads nothing here", "name it in the column or field loras"),
    (WILDCARD, "stands for nothing here", "use a column or a variant: {{ name }}"),
)


def prompt_hints(field: str, text: str, columns: Iterable[str] = ()) -> list[FieldError]:
    """Find syntax in a template or a prompt that other programs interpret but that is rendered here as plain words.

    >>> [hint.detail for hint in prompt_hints("template", "a {red|blue} {{ product|lower }}")]
    ["'{red|blue}' is not a choice here: it is drawn as plain words"]
    """
    bare = EXPRESSION.sub(" ", text)
    hints = []
    for mark, says, remedy in MARKS:
        if found := mark.search(bare):
            hints.append(_hint(field, found[0], says, remedy))
    known = set(columns)
    for found in FIELD.finditer(bare):
        name = next(part for part in found.groups() if part)
        if name in known or name.casefold() in known:
            hints.append(_hint(field, found[0], "is not a column here", f"write {{{{ {name} }}}}"))
            break
    return hints


def _hint(field: str, shown: str, says: str, remedy: str) -> FieldError:
    return FieldError(field=field, detail=f"{shown[:MAX_SHOWN]!r} {says}: it is drawn as plain words", remedy=remedy)
