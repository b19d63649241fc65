"""Several single-row inserts that belong together: PostgreSQL receives them as one statement.

Each row is written only if the previous row was, so the first insert can decide (`ON CONFLICT DO NOTHING`) without a round trip.
Locks are taken in the order of the inserts, not in an order that PostgreSQL chooses. An insert that is sent on its own costs
psycopg and the kernel about 100 microseconds, even in a pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, bindparam, exists, literal_column, select

from imagefarm.store.compiled import CompiledStatement

Defaults = list[tuple[str, Callable[[], Any]]]


class MultiInsert:
    """Core inserts, or results of `per_dialect`. Every call must give values for the same names."""

    def __init__(self, *inserts: Any) -> None:
        self._inserts = inserts
        self._one_by_one = [CompiledStatement(insert) for insert in inserts]
        self._at_once: tuple[CompiledStatement, Defaults] | None = None

    def run(self, sql: Connection, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Write one row per insert, in the connection's transaction. False if one row, and so no later row, was written."""
        if sql.dialect.name != "postgresql":
            return self._run_one_by_one(sql, rows)
        if self._at_once is None:
            self._at_once = _at_once(self._inserts, rows)
        statement, defaults = self._at_once
        values = {f"w{place}_{name}": value for place, row in enumerate(rows) for name, value in row.items()}
        values.update((name, make()) for name, make in defaults)
        return bool(statement.run(sql, values))

    def _run_one_by_one(self, sql: Connection, rows: Sequence[Mapping[str, Any]]) -> bool:
        for insert, statement, row in zip(self._inserts, self._one_by_one, rows, strict=True):
            if not statement.run(sql, row) and _in(insert, sql.dialect.name).exported_columns:
                return False
        return True


def _in(insert: Any, dialect: str) -> Any:
    return insert[dialect] if isinstance(insert, dict) else insert


def _at_once(inserts: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> tuple[CompiledStatement, Defaults]:
    """The combined statement, and the Python-side defaults for columns that the rows do not have."""
    defaults: Defaults = []
    before: Any = None
    for place, (given, row) in enumerate(zip(inserts, rows, strict=True)):
        insert = _in(given, "postgresql")
        columns = insert.table.columns
        names = list(row)
        for column in columns:
            if column.default is not None and column.name not in row:
                arg = column.default.arg
                defaults.append((f"w{place}_{column.name}", partial(arg, None) if callable(arg) else partial(_same, arg)))
                names.append(column.name)
        values = select(*(bindparam(f"w{place}_{name}", type_=columns[name].type) for name in names))
        if before is not None:
            values = values.where(exists(select(literal_column("1")).select_from(before)))
        insert = insert.from_select(names, values, include_defaults=False)
        before = (insert if insert.exported_columns else insert.returning(literal_column("1").label("written"))).cte(f"w{place}")
    return CompiledStatement(select(literal_column("1")).select_from(before)), defaults


def _same(value: Any) -> Any:
    return value
