"""pydantic's validation errors as FieldErrors for people: the field, the problem, the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from imagefarm.errors import FieldError, FieldValueError
from imagefarm.messages import N_, Message

MAX_ERRORS = 50
"""Errors that one response lists. A hostile body can cause many thousands."""
ALTERNATIVE = re.compile(r"constrained-\w+|(function-\w+|literal)\[.*\]", re.DOTALL)
"""The name of an alternative type that pydantic inserts into a field's path when the field is a union."""
OTHER_KIND = ("_type", "_parsing")
"""Endings of the error types that mean only that the value has another type."""


def field_errors(error: ValidationError, model: type[BaseModel], *, whole: str = "body") -> list[FieldError]:
    """Convert a validation error to one FieldError per field. `whole` names the field for an error of the value as a whole."""
    found = error.errors(include_url=False, include_input=False)
    items = [(tuple(item["loc"]), item) for item in found[:MAX_ERRORS]]
    errors = _united([_one(place, item, model, whole) for place, item in _without_alternatives(items)])
    if len(found) > MAX_ERRORS:
        more = Message("has %(n)s more errors", n=len(found) - MAX_ERRORS)
        errors.append(FieldError(field=whole, detail=more, remedy=N_("correct these first")))
    return errors


def _without_alternatives(items: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Remove union alternatives from the paths, and keep only the errors of the alternatives whose type fits the value."""
    tried = {place[:end] for place, _ in items for end, part in enumerate(place) if ALTERNATIVE.fullmatch(str(part))}
    order = {id(item): number for number, (_, item) in enumerate(items)}
    for position in sorted(tried, key=len, reverse=True):  # the innermost first
        end = len(position)
        own = [(place[:end] + place[end + 1 :], item) for place, item in items if place[:end] == position and place != position]
        meant = [(place, item) for place, item in own if place != position or not item["type"].endswith(OTHER_KIND)]
        items = [(place, item) for place, item in items if place[:end] != position or place == position] + (meant or own)
    return sorted(items, key=lambda found: order[id(found[1])])


def _united(errors: Sequence[FieldError]) -> list[FieldError]:
    """Merge the errors of each field into one, in the order of the fields."""
    of: dict[str, list[FieldError]] = {}
    for error in errors:
        of.setdefault(error.field, []).append(error)
    return [own[0] if len(own) == 1 else _joined(field, own) for field, own in of.items()]


def _joined(field: str, errors: Sequence[FieldError]) -> FieldError:
    return FieldError(
        field=field,
        detail=" and ".join(dict.fromkeys(error.detail for error in errors)),
        remedy=" or ".join(dict.fromkeys(error.remedy for error in errors)),
    )


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
            return N_("is missing"), N_("add it")
        case "extra_forbidden":
            return N_("is not a known field"), N_("remove it")
        case "value_error" | "assertion_error":
            return _own_words(about.get("error", message))
        case "greater_than_equal":
            return Message("is less than %(least)s", least=about["ge"]), Message("use at least %(least)s", least=about["ge"])
        case "greater_than":
            return Message("is not more than %(limit)s", limit=about["gt"]), Message("use more than %(limit)s", limit=about["gt"])
        case "less_than_equal":
            return Message("is more than %(most)s", most=about["le"]), Message("use at most %(most)s", most=about["le"])
        case "less_than":
            return Message("is not less than %(limit)s", limit=about["lt"]), Message("use less than %(limit)s", limit=about["lt"])
        case "string_too_short":
            return _too_short(about["min_length"])
        case "string_too_long":
            return Message("is longer than %(most)s characters", most=about["max_length"]), N_("shorten it")
        # pydantic reports a text that has another check before its length bounds as a `Value`; lists and objects have their own
        # name
        case "too_short" if about.get("field_type") == "Value":
            return _too_short(about["min_length"])
        case "too_long" if about.get("field_type") == "Value":
            return Message("is longer than %(most)s characters", most=about["max_length"]), N_("shorten it")
        case "too_long":
            most = about["max_length"]
            return Message("has more than %(most)s entries", most=most), Message("send at most %(most)s", most=most)
        case "too_short":
            least = about["min_length"]
            return Message("has fewer than %(least)s entries", least=least), Message("send at least %(least)s", least=least)
        case "enum" | "literal_error":
            return N_("is not one of the known values"), Message("use %(known)s", known=about["expected"])
        case "string_pattern_mismatch":
            return N_("has the wrong format"), Message("it must match %(pattern)s", pattern=about["pattern"])
        case "int_from_float":
            return N_("is not a whole number"), N_("send it without a fraction")
        case "finite_number":
            return N_("is not a finite number"), N_("send a finite number")
    if kind.startswith("int_"):
        return N_("is not a whole number"), N_("send a whole number")
    if kind.startswith("float_"):
        return N_("is not a number"), N_("send a number")
    if kind.startswith("string_"):
        return N_("is not text"), N_("send a JSON string")
    if kind.startswith("bool_"):
        return N_("is not true or false"), N_("send true or false")
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return N_("is not an object"), N_("send a JSON object")
    if kind in {"list_type", "tuple_type"}:
        return N_("is not a list"), N_("send a JSON list")
    return message[:1].lower() + message[1:], N_("see /docs for the allowed values")


def _own_words(error: object) -> tuple[str, str]:
    """The detail and remedy of one of the farm's own checks, whose text is "detail; remedy"."""
    if isinstance(error, FieldValueError):
        return error.detail, error.remedy
    detail, _, remedy = str(error).partition("; ")
    return detail, remedy or N_("correct it")


def _too_short(least: int) -> tuple[str, str]:
    if least == 1:
        return N_("is empty"), N_("fill it in")
    return N_("is too short"), Message("use at least %(least)s characters", least=least)


def _nearest(name: str, model: type[BaseModel]) -> str:
    known = [field.alias or key for key, field in model.model_fields.items()]
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return Message("did you mean %(name)s?", name=near[0])
    return Message("remove it; known are %(known)s", known=", ".join(known))
