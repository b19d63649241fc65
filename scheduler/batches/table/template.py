"""Prompt templates: Jinja expressions and `if`, without loops, calls or attribute access.

A template is untrusted and runs once for each row. Its syntax tree is checked against a list of allowed nodes before it is
compiled. Jinja's sandbox is the second defence. The length of the output is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined, UndefinedError, nodes
from jinja2.sandbox import SandboxedEnvironment

from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.recipe import MAX_PROMPT_CHARS
from scheduler.batches.table.columns import plain_name

MAX_TEMPLATE_CHARS = 8_000
MAX_NODES = 400
MAX_DEPTH = 30
"""The compile time of Jinja grows with a power of the depth."""
MAX_VALUE_CHARS = 64 * 1024

ALLOWED: tuple[type[nodes.Node], ...] = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Const,
    nodes.List,
    nodes.Tuple,
    nodes.Filter,
    nodes.Test,
    nodes.Keyword,
    nodes.If,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Concat,
)


class RowTemplateError(ValueError):
    """The template cannot be rendered for this row; the message is the reason."""


class Absent(StrictUndefined):
    """An empty cell: false in `{% if %}`, an error where it is written."""

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override]
        return False


def _bounded_replace(value: Any, old: str, new: str) -> str:
    text, old, new = str(value), str(old), str(new)
    if not old:
        raise RowTemplateError("replace: the text to find is empty")
    if len(text) + text.count(old) * (len(new) - len(old)) > MAX_VALUE_CHARS:
        raise RowTemplateError(f"replace: gives more than {MAX_VALUE_CHARS} characters")
    return text.replace(old, new)


def _truncate(value: Any, length: int = 255) -> str:
    return str(value)[: max(0, int(length))]


def _default(value: Any, other: Any = "") -> Any:
    return other if isinstance(value, Undefined) or value == "" else value


FILTERS: dict[str, Any] = {
    "lower": lambda value: str(value).lower(),
    "upper": lambda value: str(value).upper(),
    "title": lambda value: str(value).title(),
    "capitalize": lambda value: str(value).capitalize(),
    "trim": lambda value: str(value).strip(),
    "replace": _bounded_replace,
    "truncate": _truncate,
    "default": _default,
}
TESTS = frozenset({"defined", "undefined"})


class PromptTemplate:
    """A template that passed the checks. `names` are the columns and variants that it uses."""

    def __init__(self, source: str) -> None:
        """Compile `source`. Raises InvalidRequest naming the part that is not allowed, and the allowed ones."""
        if len(source) > MAX_TEMPLATE_CHARS:
            _refuse(f"has {len(source)} characters", f"shorten it to {MAX_TEMPLATE_CHARS} at most")
        environment = SandboxedEnvironment(undefined=Absent, autoescape=False, optimized=False, cache_size=0)
        environment.globals.clear()
        environment.filters = dict(FILTERS)
        environment.tests = {name: test for name, test in environment.tests.items() if name in TESTS}
        try:
            tree = environment.parse(plain_expressions(source))
            self.names = _check(tree)
            self._template = environment.from_string(tree)
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            _refuse(f"{error.message}{f' (line {line})' if line else ''}", "write columns as {{ column }}")
        except (SyntaxError, RecursionError, MemoryError):
            _refuse("is nested too deep", "make it simpler")

    def check_names(self, known: Iterable[str]) -> None:
        """Raise InvalidRequest if the template uses a column that does not exist."""
        names = sorted(set(known))
        for name in sorted(self.names - set(names)):
            _refuse(f"there is no column {name!r}", f"known columns and variants: {', '.join(names) or 'none'}")

    def render(self, values: Mapping[str, Any]) -> str:
        """Return the prompt of a row. Raises RowTemplateError if a cell that is used is empty, or the prompt is too long."""
        pieces, length = [], 0
        try:
            for piece in self._template.generate(values):
                length += len(piece)
                if length > 4 * MAX_PROMPT_CHARS:  # surrounding white space is stripped below
                    raise RowTemplateError(f"the prompt gets longer than {MAX_PROMPT_CHARS} characters")
                pieces.append(piece)
        except UndefinedError as error:
            text = (error.message or "a value is missing").replace(" is undefined", " has no value in this row")
            raise RowTemplateError(text) from None
        except (TypeError, ValueError, TemplateError) as error:
            raise RowTemplateError(str(error)[:200]) from None
        return "".join(pieces).strip()


EXPRESSION = re.compile(r"(\{\{.*?\}\}|\{%.*?%\})", re.DOTALL)
STRING = re.compile(r"""("[^"]*"|'[^']*')""")


def plain_expressions(source: str) -> str:
    """The template with its names normalised like column names: NFKC, no invisible characters. String literals are unchanged."""
    if source.isascii():
        return source
    parts = EXPRESSION.split(source)
    parts[1::2] = [
        "".join(piece if STRING.fullmatch(piece) else plain_name(f".{piece}.")[1:-1] for piece in STRING.split(part))
        for part in parts[1::2]
    ]
    return "".join(parts)


def _check(tree: nodes.Template) -> frozenset[str]:
    """Raise InvalidRequest for parts that are not allowed; return the names that are used."""
    count, names = 0, set()
    stack: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while stack:
        node, depth = stack.pop()
        count += 1
        if count > MAX_NODES:
            _refuse("has too many parts", f"use at most {MAX_NODES} expressions and texts")
        if depth > MAX_DEPTH:
            _refuse("is nested too deep", f"use at most {MAX_DEPTH - 2} filters or conditions in one another")
        if not isinstance(node, ALLOWED) or (isinstance(node, nodes.Name) and node.ctx != "load"):
            _refuse(
                f"line {node.lineno}: {type(node).__name__} is not allowed",
                "use {{ column }}, {{ column|filter }} and {% if column %}; no loops, calls, attributes or arithmetic",
            )
        if isinstance(node, nodes.Filter) and node.name not in FILTERS:
            _refuse(f"line {node.lineno}: no filter {node.name!r}", f"known filters: {', '.join(FILTERS)}")
        if isinstance(node, nodes.Test) and node.name not in TESTS:
            _refuse(f"line {node.lineno}: no test {node.name!r}", f"known tests: {', '.join(sorted(TESTS))}")
        if isinstance(node, nodes.Name):
            names.add(node.name)
        stack.extend((child, depth + 1) for child in node.iter_child_nodes())
    return frozenset(names)


def _refuse(detail: str, remedy: str) -> None:
    raise InvalidRequest([FieldError(field="template", detail=detail, remedy=remedy)])
