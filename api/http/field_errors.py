"""What pydantic found wrong, said for people: the field, what is wrong with it, and how to mend it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from imagefarm.errors import FieldError

MAX_ERRORS = 50
"""Errors told at once: a hostile body can hold many thousands."""
ALTERNATIVE = re.compile(r"constrained-\w+|(function-\w+|literal)\[.*\]", re.DOTALL)
"""What pydantic puts into a field's place where one of several kinds of value may stand: the kind that it tried."""
OTHER_KIND = ("_type", "_parsing")
"""Ends of errors that say no more than that a value is of another kind."""


def field_errors(error: ValidationError, model: type[BaseModel], *, whole: str = "body") -> list[FieldError]:
    """Every error of a validation. `whole` is the field's name when the value itself is wrong rather than a part."""
    found = error.errors(include_url=False, include_input=False)
    items = [(tuple(item["loc"]), item) for item in found[:MAX_ERRORS]]
    errors = _united([_one(place, item, model, whole) for place, item in _without_alternatives(items)])
    if len(found) > MAX_ERRORS:
        errors.append(FieldError(field=whole, detail=f"has {len(found) - MAX_ERRORS} more errors", remedy="mend these first"))
    return errors


def _without_alternatives(items: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Places without the kinds that were tried there; of these, only those that the value could have been meant as."""
    tried = {place[:end] for place, _ in items for end, part in enumerate(place) if ALTERNATIVE.fullmatch(str(part))}
    order = {id(item): number for number, (_, item) in enumerate(items)}
    for position in sorted(tried, key=len, reverse=True):  # the innermost first
        end = len(position)
        own = [(place[:end] + place[end + 1 :], item) for place, item in items if place[:end] == position and place != position]
        meant = [(place, item) for place, item in own if place != position or not item["type"].endswith(OTHER_KIND)]
        items = [(place, item) for place, item in items if place[:end] != position or place == position] + (meant or own)
    return sorted(items, key=lambda found: order[id(found[1])])


def _united(errors: Sequence[FieldError]) -> list[FieldError]:
    """One error for each field, in the order of the fields."""
    of: dict[str, list[FieldError]] = {}
    for error in errors:
        of.setdefault(error.field, []).append(error)
    return [
        FieldError(
            field=field,
            detail=" and ".join(dict.fromkeys(error.detail for error in own)),
            remedy=" or ".join(dict.fromkeys(error.remedy for error in own)),
        )
        for field, own in of.items()
    ]


def _one(loc: Any, item: Any, model: type[BaseModel], whole: str) -> FieldError:
    place = [str(part)[:100] for part in loc if part != "[key]"]
    field = ".".join(place) or whole
    detail, remedy = _words(item["type"], item.get("ctx", {}), item["msg"])
    if item["type"] == "extra_forbidden":
        remedy = _nearest(place[-1], model) if len(place) == 1 else remedy
    return FieldError(field=field, detail=detail, remedy=remedy)


def _words(kind: str, about: dict[str, Any], message: str) -> tuple[str, str]:
    match kind:
        case "missing":
            return "is missing", "add it"
        case "extra_forbidden":
            return "is not a known field", "remove it"
        case "value_error" | "assertion_error":
            detail, _, remedy = str(about.get("error", message)).partition("; ")
            return detail, remedy or "mend it"
        case "greater_than_equal":
            return f"is less than {about['ge']}", f"use at least {about['ge']}"
        case "greater_than":
            return f"is not more than {about['gt']}", f"use more than {about['gt']}"
        case "less_than_equal":
            return f"is more than {about['le']}", f"use at most {about['le']}"
        case "less_than":
            return f"is not less than {about['lt']}", f"use less than {about['lt']}"
        case "string_too_short":
            return "is too short", f"use at least {about['min_length']} characters"
        case "string_too_long":
            return f"is longer than {about['max_length']} characters", "shorten it"
        # a text that has another check before its bounds is a `Value`; lists and objects say what they are
        case "too_short" if about.get("field_type") == "Value":
            return "is too short", f"use at least {about['min_length']} characters"
        case "too_long" if about.get("field_type") == "Value":
            return f"is longer than {about['max_length']} characters", "shorten it"
        case "too_long":
            return f"has more than {about['max_length']} entries", f"send at most {about['max_length']}"
        case "too_short":
            return f"has fewer than {about['min_length']} entries", f"send at least {about['min_length']}"
        case "enum" | "literal_error":
            return "is not one of the known values", f"use {about['expected']}"
        case "string_pattern_mismatch":
            return "has not the right form", f"it must match {about['pattern']}"
        case "int_from_float":
            return "is not a whole number", "send it without a fraction"
        case "finite_number":
            return "is not a finite number", "send a finite number"
    if kind.startswith("int_"):
        return "is not a whole number", "send a whole number"
    if kind.startswith("float_"):
        return "is not a number", "send a number"
    if kind.startswith("string_"):
        return "is not text", "send a JSON string"
    if kind.startswith("bool_"):
        return "is not true or false", "send true or false"
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return "is not an object", "send a JSON object"
    if kind in {"list_type", "tuple_type"}:
        return "is not a list", "send a JSON list"
    return message[:1].lower() + message[1:], "see /docs for what it may be"


def _nearest(name: str, model: type[BaseModel]) -> str:
    known = [field.alias or key for key, field in model.model_fields.items()]
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else "remove it; known are " + ", ".join(known)
