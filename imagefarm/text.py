"""Checks of text from outside: characters that a database, file or page cannot hold or show."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from imagefarm.errors import FieldValueError
from imagefarm.messages import N_, Message


def check_text(text: str) -> str:
    """Return `text`. Raises ValueError for NUL and lone surrogates, which PostgreSQL and UTF-8 cannot hold."""
    if "\x00" in text:
        raise FieldValueError(N_("has a NUL character"), N_("remove it"))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        detail = Message("has a lone surrogate at position %(at)s", at=error.start)
        raise FieldValueError(detail, N_("send whole characters")) from None
    return text


INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a]"
)
"""Characters of Unicode's category Cf that are not drawn: zero-width spaces and joiners, byte order marks, soft hyphens,
direction marks. Not included are Arabic number signs, which are drawn, and tags, which end the emoji of a flag."""
SPACES = "".join(chr(code) for code in range(0x3001) if chr(code).isspace())
EDGE = SPACES + "".join(chr(code) for code in range(0xFFFC) if INVISIBLE.match(chr(code)))
JOINERS = "\u200c\u200d"
NOT_SEEN_ALONE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u034f\u115f\u1160\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0000-\U000e0fff]+")
"""White space, control characters, fillers and selectors. A text with no other characters shows nothing."""


def strip_invisible(text: str) -> str:
    """`text` without white space and invisible characters at both ends.

    >>> strip_invisible("\\ufeff\\u200b A-1\\u200e ")
    'A-1'
    """
    if text.isascii():
        return text.strip()
    return text.strip(EDGE)


def remove_invisible(text: str) -> str:
    """`text` in the form in which names are compared: composed (NFC), without invisible characters except joiners
    between letters.

    >>> remove_invisible("A\\u200b-1\\ufeff")
    'A-1'
    """
    if text.isascii():
        return text.strip()
    kept = INVISIBLE.sub(lambda found: found[0] if found[0] in JOINERS else "", strip_invisible(text))
    return unicodedata.normalize("NFC", kept)


def is_blank(text: str) -> bool:
    """True if `text` is empty or has only white space, invisible characters and fillers."""
    if text[:1].isascii() and text[:1].isalnum():  # most texts: a bulk submission asks for each of its prompts
        return False
    return not NOT_SEEN_ALONE.sub("", INVISIBLE.sub("", text))


def check_not_blank(text: str) -> str:
    """Return `text`. Raises ValueError if it has no visible character."""
    if is_blank(text):
        raise FieldValueError(N_("is empty"), N_("describe the picture"))
    return text


def refuse_bool(value: Any) -> Any:
    """Return `value`. Raises ValueError for true and false, because Python treats them as 1 and 0."""
    if isinstance(value, bool):
        raise FieldValueError(N_("must be a number, not true or false"), N_("write it in digits"))
    return value


Text = Annotated[str, AfterValidator(check_text)]
Label = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(check_text)]
NotBool = BeforeValidator(refuse_bool)
"""Put it after the bounds in `Annotated`; before them, the JSON Schema loses the limits."""
