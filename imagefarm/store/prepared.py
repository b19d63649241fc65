"""Statements of the hottest paths: their SQL is made once, and goes to the driver's own cursor.

SQLAlchemy takes some 70 microseconds of Python for a statement, however small, and a submit has ten. A `Prepared` keeps what
SQLAlchemy compiled, with its converters of values, and leaves out the rest. On PostgreSQL several may travel together:

```
with pipelined(sql):
    taken = TAKE.send(sql, key)
    INSERT_JOB.send(sql, row)
    ...
    taken.rows()  # waits for the answers of all
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, cast

from sqlalchemy import Connection, Dialect, Float
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

Converter = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Made:
    """A statement in one dialect."""

    text: str
    order: list[str] | None
    fixed: dict[str, Any]
    defaults: dict[str, Callable[[], Any]]
    binders: list[tuple[str, Converter]]
    readers: list[tuple[int, Converter]]

    def bound(self, values: Mapping[str, Any]) -> Any:
        """The values as the driver takes them."""
        given = {**self.fixed, **values}
        for name, default in self.defaults.items():
            given[name] = default()
        for name, convert in self.binders:
            given[name] = convert(given[name])
        return given if self.order is None else [given[name] for name in self.order]


class Prepared:
    """A Core statement, or one for each dialect by its name. Every call must give values for the same names."""

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        self._made: dict[str, Made] = {}

    def send(self, sql: Connection, values: Mapping[str, Any] | None = None) -> Sent:
        """Execute within the connection's transaction. Raises what SQLAlchemy would."""
        given = values or {}
        made = self._made.get(sql.dialect.name)
        if made is None:
            made = self._made[sql.dialect.name] = self._make(sql.dialect, list(given))
        driver: Any = sql.connection.driver_connection
        try:
            return Sent(sql, made, driver.execute(made.text, made.bound(given)))
        except sql.dialect.loaded_dbapi.Error as error:
            _raise(sql, error, made.text)

    def run(self, sql: Connection, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Execute and return the rows."""
        return self.send(sql, values).rows()

    def _make(self, dialect: Dialect, names: list[str]) -> Made:
        statement = self._statement[dialect.name] if isinstance(self._statement, dict) else self._statement
        compiled = cast("SQLCompiler", statement.compile(dialect=dialect, column_keys=names or None))
        defaults: dict[str, Callable[[], Any]] = {}
        for column in compiled.insert_prefetch if statement.is_insert else ():
            arg = column.default.arg  # type: ignore[union-attr]
            defaults[column.key] = partial(arg, None) if callable(arg) else partial(_same, arg)
        binders: list[tuple[str, Converter]] = []
        for name, bind in compiled.binds.items():
            convert = bind.type.dialect_impl(dialect).bind_processor(dialect)
            if convert is not None:
                binders.append((name, convert))
        columns = statement.exported_columns if statement.is_dml else statement.selected_columns
        readers = []
        for place, column in enumerate(columns):
            if isinstance(column.type, Float):
                continue  # all of ours are floats, and both drivers give them as such
            read = column.type.dialect_impl(dialect).result_processor(dialect, None)
            if read is not None:
                readers.append((place, read))
        fixed = {name: bind.effective_value for name, bind in compiled.binds.items() if not bind.required}
        order = list(compiled.positiontup) if compiled.positiontup is not None else None
        return Made(str(compiled), order, {n: v for n, v in fixed.items() if n not in defaults}, defaults, binders, readers)


class Sent:
    """A statement on its way."""

    __slots__ = ("_cursor", "_made", "_sql")

    def __init__(self, sql: Connection, made: Made, cursor: Any) -> None:
        self._sql, self._made, self._cursor = sql, made, cursor

    def rows(self) -> list[tuple[Any, ...]]:
        """Its rows; in a pipeline this waits for it and for all that were sent before."""
        try:
            rows: list[tuple[Any, ...]] = self._cursor.fetchall()
        except self._sql.dialect.loaded_dbapi.Error as error:
            _raise(self._sql, error, self._made.text)
        readers = self._made.readers
        if not readers:
            return rows
        converted = [list(row) for row in rows]
        for row in converted:
            for place, read in readers:
                row[place] = read(row[place])
        return [tuple(row) for row in converted]


@contextmanager
def pipelined(sql: Connection) -> Iterator[None]:
    """What is sent in the block goes to PostgreSQL without waiting for each answer; SQLite has nobody to wait for."""
    if sql.dialect.name != "postgresql":
        yield
        return
    driver: Any = sql.connection.driver_connection
    try:
        with driver.pipeline():
            yield
    except sql.dialect.loaded_dbapi.Error as error:
        _raise(sql, error, "pipeline")


def _same(value: Any) -> Any:
    return value


def _raise(sql: Connection, error: Exception, text: str) -> NoReturn:
    """As SQLAlchemy tells it, so that the callers know a lost connection and a lock."""
    lost = not sql.invalidated and sql.dialect.is_disconnect(error, sql.connection.driver_connection, None)  # type: ignore[arg-type]
    if lost:
        sql.invalidate(error)
    raise DBAPIError.instance(
        text, None, error, sql.dialect.loaded_dbapi.Error, connection_invalidated=lost, dialect=sql.dialect
    ) from error
