"""Statements of the hottest paths: compiled once and executed on the driver's own cursor.

SQLAlchemy spends about 70 microseconds of Python on every statement. A `CompiledStatement` keeps the compiled SQL and its
value converters and skips the rest. Where one statement is the whole transaction, PostgreSQL needs no BEGIN and COMMIT:

```
with autocommit(sql):
    INSERT_JOB.run(sql, row)
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, cast

from sqlalchemy import Connection, Dialect, Float
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

Converter = Callable[[Any], Any]
STATEMENT_HOOKS: list[Callable[[str, Any], None]] = []
"""Called with each statement and its values, like SQLAlchemy's `before_cursor_execute` for ordinary statements."""


@dataclass(frozen=True, slots=True)
class DialectSql:
    """A statement compiled for one dialect."""

    text: str
    order: list[str] | None
    fixed: dict[str, Any]
    defaults: dict[str, Callable[[], Any]]
    binders: list[tuple[str, Converter]]
    readers: list[tuple[int, Converter]]
    gives_rows: bool

    def bound(self, values: Mapping[str, Any]) -> Any:
        """The values as the driver takes them."""
        given = {**self.fixed, **values}
        for name, default in self.defaults.items():
            given[name] = default()
        for name, convert in self.binders:
            given[name] = convert(given[name])
        return given if self.order is None else [given[name] for name in self.order]

    def read(self, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Driver rows converted as SQLAlchemy would convert them."""
        if not self.readers:
            return rows
        converted = [list(row) for row in rows]
        for row in converted:
            for place, read in self.readers:
                row[place] = read(row[place])
        return [tuple(row) for row in converted]


class CompiledStatement:
    """A Core statement, or one per dialect by name. Every call must give values for the same names."""

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        self._by_dialect: dict[str, DialectSql] = {}

    def run(self, sql: Connection, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Execute in the connection's transaction and return the rows. Raises the same errors as SQLAlchemy."""
        given = values or {}
        dialect_sql = self._in(sql.dialect, given)
        bound = dialect_sql.bound(given)
        for hook in STATEMENT_HOOKS:
            hook(dialect_sql.text, bound)
        driver: Any = sql.connection.driver_connection
        try:
            cursor = driver.execute(dialect_sql.text, bound)
            return dialect_sql.read(cursor.fetchall()) if dialect_sql.gives_rows else []
        except sql.dialect.loaded_dbapi.Error as error:
            _raise(sql, error, dialect_sql.text)

    def run_each(self, sql: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute once per row in one call; results are dropped."""
        if len(rows) < 2:
            for values in rows:
                self.run(sql, values)
            return
        dialect_sql = self._in(sql.dialect, rows[0])
        bound = [dialect_sql.bound(values) for values in rows]
        for hook in STATEMENT_HOOKS:
            hook(dialect_sql.text, bound[0])
        driver: Any = sql.connection.driver_connection
        try:
            driver.cursor().executemany(dialect_sql.text, bound)
        except sql.dialect.loaded_dbapi.Error as error:
            _raise(sql, error, dialect_sql.text)

    def _in(self, dialect: Dialect, given: Mapping[str, Any]) -> DialectSql:
        dialect_sql = self._by_dialect.get(dialect.name)
        if dialect_sql is None:
            dialect_sql = self._by_dialect[dialect.name] = self._compile(dialect, list(given))
        return dialect_sql

    def _compile(self, dialect: Dialect, names: list[str]) -> DialectSql:
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
                continue  # all of these are floats, which both drivers return unchanged
            read = column.type.dialect_impl(dialect).result_processor(dialect, None)
            if read is not None:
                readers.append((place, read))
        fixed = {name: bind.effective_value for name, bind in compiled.binds.items() if not bind.required}
        order = list(compiled.positiontup) if compiled.positiontup is not None else None
        fixed = {name: value for name, value in fixed.items() if name not in defaults}
        return DialectSql(str(compiled), order, fixed, defaults, binders, readers, len(columns) > 0)


@contextmanager
def autocommit(sql: Connection) -> Iterator[None]:
    """Run the one statement of the block in autocommit, unless a transaction has begun already (on SQLite it always has)."""
    driver: Any = sql.connection.driver_connection
    if sql.dialect.name != "postgresql" or driver.info.transaction_status != 0:  # 0: idle
        yield
        return
    driver.autocommit = True
    try:
        yield
    finally:
        if not driver.closed:
            driver.autocommit = False


def _same(value: Any) -> Any:
    return value


def _raise(sql: Connection, error: Exception, text: str) -> NoReturn:
    """Convert a driver error to SQLAlchemy's, so that callers recognise a lost connection or a lock."""
    lost = not sql.invalidated and sql.dialect.is_disconnect(error, sql.connection.driver_connection, None)  # type: ignore[arg-type]
    if lost:
        sql.invalidate(error)
    raise DBAPIError.instance(
        text, None, error, sql.dialect.loaded_dbapi.Error, connection_invalidated=lost, dialect=sql.dialect
    ) from error
