"""The names of a table's columns: as a template finds them, which of them are known, and which are almost a known one."""

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
"""Columns of these names override the defaults for their row."""
IDENTITY_COLUMNS = frozenset({"sku", "custom_id"})
"""Columns that say which product a row is about."""
KNOWN_COLUMNS = RECIPE_COLUMNS | IDENTITY_COLUMNS | {"prompt"}
"""Column names with a meaning of their own, in whatever case a spreadsheet spells them."""
OTHER_NAMES = {"image": "init_image"}
LOOKALIKES = str.maketrans("аеорсухкіјѕтмвнαεοιρυκτνμ", "aeopcyxkijstmbhaeoipuktvm")
"""Cyrillic and Greek small letters, and the Latin ones that they look like."""
JINJA = Environment()  # noqa: S701 - only parses
MIN_FUZZY_CHARS = 5
"""Shorter names have too many neighbours that mean something else."""


@lru_cache(maxsize=4096)
def _is_name_part(character: str) -> bool:
    """Whether a template can have the character in a name: letters, digits, and marks, without which Hindi words fall apart."""
    if not f"_{character}".isidentifier():
        return False
    try:
        JINJA.parse(f"{{{{ _{character} }}}}")
    except TemplateSyntaxError:
        return False
    return True


def plain_name(name: str) -> str:
    """A name as it is compared: composed, full-width letters as plain ones, nothing invisible."""
    return unicodedata.normalize("NFKC", INVISIBLE.sub("", name)).strip()


def column_name(name: str) -> str:
    """The name under which a template finds a column: known ones in small letters, others with `_` for odd characters.

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
    """Warnings for columns that are almost a known one which the table does not have."""
    columns = list(columns)
    missing = sorted(KNOWN_COLUMNS - {*columns, "init_image"} | (set() if "init_image" in columns else {"image"}))
    found = []
    for key in columns:
        near = None if key in KNOWN_COLUMNS else next((known for known in missing if _is_near(key, known)), None)
        if near is not None:
            script = "" if key.isascii() else ", in letters of another script"
            detail = f"is almost the column {near!r}{script}; the table has no column {near!r}"
            remedy = f"call it {near}, if that is meant; as it is, only a template can use it"
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
    """Whether one letter was left out, added, changed or swapped with its neighbour."""
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    a, b = one[start:], other[start:]
    return a[1:] == b or a == b[1:] or a[1:] == b[1:] or (a[:2] == b[:2][::-1] and a[2:] == b[2:])
