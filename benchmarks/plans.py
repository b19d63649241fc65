"""The database's plans of the statements of some work: each statement that reads or changes rows, with its indexes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import event

from imagefarm.store import Store
from imagefarm.store.compiled import STATEMENT_HOOKS


def plans_of(store: Store, work: Callable[[], object], *, writes: bool = True) -> dict[str, list[str]]:
    """Do the work and return, by statement, the lines of its plan. `writes`: it uses the store's writer."""
    ran: dict[str, Any] = {}

    def keep(statement: str, parameters: Any) -> None:
        if statement.startswith("UPDATE") or "FROM " in statement:
            ran.setdefault(statement, parameters)

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        keep(statement, parameters[0] if many else parameters)

    engine = store.writer if writes else store.reader
    event.listen(engine, "before_cursor_execute", note)
    STATEMENT_HOOKS.append(keep)
    try:
        work()
    finally:
        STATEMENT_HOOKS.remove(keep)
        event.remove(engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN " if store.is_sqlite else "EXPLAIN "
    found = {}
    with store.read() as session:
        connection = session.connection()
        for statement, parameters in ran.items():
            if isinstance(parameters, list):
                parameters = tuple(parameters)  # noqa: PLW2901 - a list would be many
            rows = connection.exec_driver_sql(explain + statement, parameters)
            found[statement] = [str(row[3] if store.is_sqlite else row[0]) for row in rows]
    return found


def plans_text(plans: dict[str, list[str]], indent: str = "    ") -> str:
    """The plans as text, long lines cut."""
    lines = []
    for statement, plan in plans.items():
        lines += [indent + " ".join(statement.split())[:110], *(f"{indent}    {line[:250]}" for line in plan)]
    return "\n".join(lines)
