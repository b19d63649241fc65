"""Column names of a table: normalised for templates, matched with the known columns, and checked for near misses."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from jinja2 import Environment, TemplateSyntaxError

from imagefarm.errors import FieldError
from imagefarm.recipe import JobRequest
from imagefarm.text import INVISIBLE

MAX_COLUMNS = 200
MAX_COLUMN_NAME = 64
RECIPE_COLUMNS = frozenset(JobRequest.model_fields) - {"prompt", "labels", "custom_id", "priority", "expires_in", "preview"}
"""A cell in one of these columns overrides the default for its row."""
IDENTITY_COLUMNS = frozenset({"sku", "custom_id"})
"""Columns that identify the product of a row."""
KNOWN_COLUMNS = RECIPE_COLUMNS | IDENTITY_COLUMNS | {"prompt"}
"""Column names with a fixed meaning, in upper or lower case."""
OTHER_NAMES = {"image": "init_image"}
LOOKALIKES = str.maketrans("аеорсухкіјѕтмвнαεοιρυκτνμ", "aeopcyxkijstmbhaeoipuktvm")
"""Cyrillic and Greek small letters, and the Latin letters that they look like."""
JINJA = Environment()  # noqa: S701 - only parses
MIN_FUZZY_CHARS = 5
"""Shorter names are not compared by single letters, because too many other words are one letter away."""


@lru_cache(maxsize=4096)
def _is_name_part(character: str) -> bool:
    """Whether a name in a template can contain the character: letters, digits, and combining marks, which Hindi words need."""
    if not f"_{character}".isidentifier():
        return False
    try:
        JINJA.parse(f"{{{{ _{character} }}}}")
    except TemplateSyntaxError:
        return False
    return True


def plain_name(name: str) -> str:
    """A name in the form used for comparison: NFKC, without invisible characters."""
    return unicodedata.normalize("NFKC", INVISIBLE.sub("", name)).strip()


def column_name(name: str) -> str:
    """The name under which a template finds a column: a known one in lower case, any other with `_` for unsupported characters.

    >>> column_name("\\ufeffSKU"), column_name("Größe (cm)"), column_name("रंग"), column_name("3D model")
    ('sku', 'Größe__cm_', 'रंग', '_3D_model')
    """
    key = "".join(character if _is_name_part(character) else "_" for character in plain_name(name))
    if key and not key.isidentifier():
        key = f"_{key}"
    folded = key.casefold()
    folded = OTHER_NAMES.get(folded, folded)
    return folded if folded in KNOWN_COLUMNS else key


def near_misses(columns: Iterable[str]) -> list[FieldError]:
    """Warnings for columns whose name is almost a known one that the table does not have."""
    columns = list(columns)
    missing = sorted(KNOWN_COLUMNS - {*columns, "init_image"} | (set() if "init_image" in columns else {"image"}))
    found = []
    for key in columns:
        near = None if key in KNOWN_COLUMNS else next((known for known in missing if _is_near(key, known)), None)
        if near is not None:
            script = "" if key.isascii() else ", in letters of another script"
            detail = f"is almost the column {near!r}{script}; the table has no column {near!r}"
            remedy = f"rename it to {near} if you meant that; otherwise only a template can use it"
            found.append(FieldError(field=key, detail=detail, remedy=remedy))
    return found


def _is_near(key: str, known: str) -> bool:
    letters, wanted = _letters(key), known.replace("_", "")
    if letters in {wanted, f"{wanted}s"} or (known == "sku" and (letters.startswith("sku") or letters.endswith("sku"))):
        return True
    return len(wanted) >= MIN_FUZZY_CHARS and abs(len(letters) - len(wanted)) <= 1 and _one_edit(letters, wanted)


def _letters(key: str) -> str:
    return "".join(character for character in key.casefold().translate(LOOKALIKES) if character.isalpha())


def _one_edit(one: str, other: str) -> bool:
    """Whether the words differ by one letter that was left out, added, changed or swapped with its neighbour."""
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    a, b = one[start:], other[start:]
    return a[1:] == b or a == b[1:] or a[1:] == b[1:] or (a[:2] == b[:2][::-1] and a[2:] == b[2:])
