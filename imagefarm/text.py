"""Checks of text from outside: what every database, file and page can hold."""

from __future__ import annotations

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


def check_not_blank(text: str) -> str:
    """Return `text`; raise ValueError if nothing but white space is in it."""
    if not text.strip():
        raise FieldValueError(N_("is empty"), N_("describe the picture"))
    return text


def refuse_bool(value: Any) -> Any:
    """Return `value`. Raises ValueError for true and false, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise FieldValueError(N_("must be a number, not true or false"), N_("write it in digits"))
    return value


Text = Annotated[str, AfterValidator(check_text)]
Label = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(check_text)]
NotBool = BeforeValidator(refuse_bool)
"""Put it after the bounds in `Annotated`; before them, the JSON Schema loses the limits."""
