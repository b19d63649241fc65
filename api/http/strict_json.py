"""A strict JSON parser: it refuses NaN, duplicate keys, text that no database can store, and deep nesting.

`json.loads` accepts all of these, and each would fail later with a worse error than a 400.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.text import check_text

MAX_DEPTH = 32
MAX_DIGITS = 64
"""Digits of a number: far above a 64-bit seed, far below the length at which int() becomes slow."""


class InvalidJson(InvalidRequest):
    """The body is not JSON, or is JSON that the farm does not accept."""

    code = "invalid_json"
    status = 400
    title = "The body is not valid JSON"


def parse(body: bytes) -> Any:
    """Return the value of a JSON text. Raises InvalidJson, which names the place and the remedy."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(f"byte {error.start} is not UTF-8", "send JSON as UTF-8")
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int)
    except json.JSONDecodeError as error:
        empty = not text.strip()
        _refuse(
            "is empty" if empty else f"line {error.lineno} column {error.colno}: {error.msg}",
            "send a JSON object" if empty else "correct the JSON there",
        )
    except RecursionError:
        _too_deep()
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    if "\\u" in text:  # raw UTF-8 cannot hold NUL (a control character) or a lone surrogate; an escape can
        _check_texts(value)
    return value


def _refuse(detail: str, remedy: str, field: str = "body") -> NoReturn:
    raise InvalidJson([FieldError(field=field, detail=detail, remedy=remedy)])


def _too_deep() -> NoReturn:
    _refuse(f"is nested deeper than {MAX_DEPTH} levels", "send a flatter object")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                _refuse("is given twice in one object", "send each field once", field=_shown(key))
            seen.add(key)
    return value


def _constant(name: str) -> NoReturn:
    _refuse(f"{name} is not a JSON number", "send a finite number, or leave the field out")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        _refuse(f"the number {text[:20]} is too large", "send a smaller number")
    return value


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        _refuse(f"a number has {len(text)} digits", f"send at most {MAX_DIGITS}")
    return int(text)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    if any(isinstance(item, dict | list) for item in level):
        _too_deep()


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _check_texts(value: Any) -> None:
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        where, item = waiting.pop()
        if isinstance(item, str):
            _check_one(where or "body", item)
        elif isinstance(item, dict):
            for key, child in item.items():
                _check_one(_shown(key), key)
                waiting.append((f"{where}.{key}" if where else key, child))
        elif isinstance(item, list):
            waiting += [(f"{where}.{place}" if where else str(place), child) for place, child in enumerate(item)]


def _check_one(field: str, text: str) -> None:
    try:
        check_text(text)
    except ValueError as error:
        detail, _, remedy = str(error).partition("; ")
        _refuse(detail, remedy, field=field)


def _shown(key: str) -> str:
    return key[:100].encode("utf-8", "backslashreplace").decode()
