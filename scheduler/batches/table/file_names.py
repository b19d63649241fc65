"""File names from a pattern such as `{sku}-{view}-{n}`: valid in every file system, never a path, unique in the batch."""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.text import INVISIBLE

MAX_PATTERN_CHARS = 200
MAX_STEM_BYTES = 180
"""In bytes. Most file systems allow 255; the rest is for the number, the extension and additions by other tools."""
NUMBER = "{n}"
OWN_FIELDS = frozenset({"row", "n", "seed", "model"})
FIELD = re.compile(r"\{([^{}]*)\}")
RUN = re.compile("\x00+")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows reserves for devices."""


def sanitize(text: str) -> str:
    """`text` with every run of characters that are unsuitable in a file name replaced by `-`.

    >>> sanitize("../Äpfel & Birnen.v2")
    'Äpfel-Birnen.v2'
    """
    if text.isascii():  # most names, and an ASCII character is neither invisible nor decomposed
        text = re.sub(r"[^\w.+-]+", "-", text)
    else:
        text = INVISIBLE.sub("", unicodedata.normalize("NFC", text))
        text = RUN.sub("-", "".join(character if _is_safe(character) else "\x00" for character in text))
    if ".." in text:
        text = re.sub(r"\.{2,}", ".", text)
    return text.strip("-.")


@lru_cache(maxsize=4096)
def _is_safe(character: str) -> bool:
    """Whether the character is safe in a file name: a letter, a digit, or a combining mark, which Thai and Hindi words need."""
    return character in "_.+-" or unicodedata.category(character)[0] in "LMN"


class NamePattern:
    """A file name pattern. `{n}` is the image's number in its job, from 1."""

    def __init__(self, pattern: str, known: Iterable[str] | None = None) -> None:
        """Raises InvalidRequest for an unknown field or a character unsuitable in a file name. `known` None: any column."""
        if not pattern or len(pattern) > MAX_PATTERN_CHARS:
            _refuse(f"has {len(pattern)} characters", f"use 1 to {MAX_PATTERN_CHARS}")
        self.pattern = pattern
        self.fields = FIELD.findall(pattern)
        literal = FIELD.sub("", pattern)
        if "{" in literal or "}" in literal:
            _refuse("has a brace without its partner", "write fields like {sku}")
        if re.search(r"[^\w.+-]", literal) or ".." in literal or pattern.startswith("."):
            _refuse("has characters that a file name should not have", "use letters, digits, - _ . and fields like {sku}")
        for field in self.fields:
            if not field.isidentifier():
                _refuse(f"{{{field[:60]}}} is not a field", "write plain names like {sku}, without formats or dots")
        if known is not None:
            self.check_names(known)

    def check_names(self, known: Iterable[str]) -> None:
        """Raise InvalidRequest if the pattern uses a column that does not exist."""
        names = sorted({*known, *OWN_FIELDS})
        for field in self.fields:
            if field not in names:
                _refuse(f"there is no column {field!r}", f"known: {', '.join(names)}")

    def stem(self, values: Mapping[str, Any]) -> str:
        """The name of a job's images, without extension; `{n}` remains for `file_stem` to replace. Raises ValueError."""

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name == "n":
                return NUMBER
            if (raw := values.get(name)) is None:
                raise ValueError(f"column {name!r} has no value in this row, and the name pattern needs it")
            part = sanitize(str(raw))
            if not part:
                raise ValueError(f"the value of {name!r} has no character that a file name may have")
            return part

        stem = FIELD.sub(value, self.pattern)
        if len(stem.encode()) > MAX_STEM_BYTES:
            raise ValueError(f"its file name is longer than {MAX_STEM_BYTES} bytes")
        return f"_{stem}" if RESERVED.fullmatch(stem) or stem.startswith((".", "-")) else stem


def default_pattern(variants: Iterable[str]) -> str:
    """`{sku}-{view}...`, for rows that have a SKU. Images of other rows are named by custom id or job id.

    >>> default_pattern(["view"])
    '{sku}-{view}'
    """
    return "-".join(["{sku}", *(f"{{{name}}}" for name in variants)])


def file_stem(name: str, index: int, count: int) -> str:
    """The name of image `index` (from 0) in a job of `count` images.

    >>> file_stem("A-17-{n}", 0, 2), file_stem("A-17", 1, 2), file_stem("A-17", 0, 1)
    ('A-17-1', 'A-17-2', 'A-17')
    """
    if NUMBER in name:
        return name.replace(NUMBER, str(index + 1))
    return f"{name}-{index + 1}" if count > 1 else name


class NameClash(NamedTuple):
    """A file name that another row uses already. `same_product`: that row has the same SKU."""

    stem: str
    row: int
    same_product: bool


class NameRegistry:
    """The file names that a batch uses, as 64-bit digests: 200,000 names fit in about 20 MB."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}

    def clash(self, name: str, count: int, row: int, product: str) -> NameClash | None:
        """Register the file names of a job of `product`; return the first that another row (or variant) uses, or None."""
        keys = []
        mark = zlib.crc32(product.encode())
        for index in range(count):
            stem = file_stem(name, index, count)
            # names must differ in more than case, for Windows and macOS
            key = int.from_bytes(hashlib.blake2b(stem.casefold().encode(), digest_size=8).digest(), "big")
            if key in self._rows:
                other, known = divmod(self._rows[key], 1 << 32)
                return NameClash(stem, other, known == mark)
            keys.append(key)
        self._rows.update(dict.fromkeys(keys, row << 32 | mark))  # row and product in one integer
        return None


def _refuse(detail: str, remedy: str) -> None:
    raise InvalidRequest([FieldError(field="name_pattern", detail=detail, remedy=remedy)])
