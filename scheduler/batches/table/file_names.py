"""File names from a pattern such as `{sku}-{view}-{n}`: safe in every file system, never a path, never twice."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from imagefarm.errors import FieldError, InvalidRequest

MAX_PATTERN_CHARS = 200
MAX_STEM_BYTES = 180
"""Most file systems take names of 255 bytes; the number, the extension and a folder's tool need some."""
NUMBER = "{n}"
OWN_FIELDS = frozenset({"row", "n", "seed", "model"})
FIELD = re.compile(r"\{([^{}]*)\}")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for devices."""


def sanitize(text: str) -> str:
    """`text` with every run of characters that a file name should not have turned into `-`.

    >>> sanitize("../Äpfel & Birnen.v2")
    'Äpfel-Birnen.v2'
    """
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"[^\w.+-]+", "-", text)
    text = re.sub(r"\.{2,}", ".", text)
    return text.strip("-.")


class NamePattern:
    """A pattern whose fields are all known. `{n}` is the picture's number within its job, from 1."""

    def __init__(self, pattern: str, known: Iterable[str] | None = None) -> None:
        """Raises InvalidRequest for unknown fields and for what cannot be in a file name. `known` None: any column."""
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
        """Raise InvalidRequest if the pattern uses a column that is not there."""
        names = sorted({*known, *OWN_FIELDS})
        for field in self.fields:
            if field not in names:
                _refuse(f"there is no column {field!r}", f"known: {', '.join(names)}")

    def stem(self, values: Mapping[str, Any]) -> str:
        """The name of a job's pictures, without extension; `{n}` stays in it for `file_stem`. Raises ValueError."""

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
    """`{sku}-{view}...`, for rows that have a SKU; pictures of others are named by custom id or job.

    >>> default_pattern(["view"])
    '{sku}-{view}'
    """
    return "-".join(["{sku}", *(f"{{{name}}}" for name in variants)])


def file_stem(name: str, index: int, count: int) -> str:
    """The name of picture `index` (from 0) of a job of `count`.

    >>> file_stem("A-17-{n}", 0, 2), file_stem("A-17", 1, 2), file_stem("A-17", 0, 1)
    ('A-17-1', 'A-17-2', 'A-17')
    """
    if NUMBER in name:
        return name.replace(NUMBER, str(index + 1))
    return f"{name}-{index + 1}" if count > 1 else name


class NameRegistry:
    """Which names a batch has used, as 64-bit digests: 200,000 names fit in about 20 MB."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}

    def clash(self, name: str, count: int, row: int) -> tuple[str, int] | None:
        """Take the file names of a job; return the first that another row (or variant) has, with that row, or None."""
        keys = []
        for index in range(count):
            stem = file_stem(name, index, count)
            # Windows and macOS do not tell A from a
            key = int.from_bytes(hashlib.blake2b(stem.casefold().encode(), digest_size=8).digest(), "big")
            if key in self._rows:
                return stem, self._rows[key]
            keys.append(key)
        self._rows.update(dict.fromkeys(keys, row))
        return None


def _refuse(detail: str, remedy: str) -> None:
    raise InvalidRequest([FieldError(field="name_pattern", detail=detail, remedy=remedy)])
