"""Migrates the database to the schema this code expects, and refuses a newer one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, select

from imagefarm.errors import SchemaMismatch
from imagefarm.settings import PROJECT_ROOT
from imagefarm.states import CLASS_WEIGHTS
from imagefarm.store.engine import Store, db_now
from imagefarm.store.models import FlowClass, SweepState, Tenant

if TYPE_CHECKING:
    from sqlalchemy import Connection

DEFAULT_TENANT = "tenant_default"
"""The tenant of requests without a key on an open farm."""


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, built in code, so that no alembic.ini has to match it."""
    config = Config()
    config.set_main_option("script_location", str(PROJECT_ROOT / "migrations"))
    config.attributes["connection"] = connection
    return config


def head_revision() -> str:
    """The revision this code expects."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head() or ""


def current_revision(store: Store) -> str | None:
    """The database's revision; None if it was never migrated."""
    with store.reader.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def migrate(store: Store, revision: str = "head") -> str:
    """Upgrade the database (or downgrade it to an older `revision`); return its revision afterwards.

    Raises SchemaMismatch if the database was made by newer code.
    """
    current = current_revision(store)
    scripts = ScriptDirectory.from_config(alembic_config())
    known = [script.revision for script in scripts.walk_revisions()]  # newest first
    if current is not None and current not in known:
        raise SchemaMismatch(
            f"the database is at revision {current}, which this version does not know: it was made by a newer imagefarm. "
            "Upgrade imagefarm, or point database_url elsewhere."
        )
    target = scripts.get_current_head() if revision == "head" else revision
    with store.writer.begin() as connection:
        if not store.is_sqlite:  # building an index on a million rows takes longer than the usual timeout
            connection.connection.driver_connection.no_timeout = True  # type: ignore[union-attr]
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        config = alembic_config(connection)
        if revision == "base" or (current in known and target in known and known.index(str(target)) > known.index(str(current))):
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)
    if revision == "head":
        _first_rows(store)
    return current_revision(store) or ""


def check(store: Store) -> None:
    """Raise SchemaMismatch unless the database is exactly at this code's revision."""
    current = current_revision(store)
    if current != head_revision():
        known = {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}
        if current is not None and current not in known:
            raise SchemaMismatch(f"the database is newer than this imagefarm (revision {current}); upgrade imagefarm")
        raise SchemaMismatch(f"the database is at revision {current or 'none'}, not {head_revision()}; run `imagefarm migrate`")


def _first_rows(store: Store) -> None:
    with store.write() as session:
        if session.get(FlowClass, "root") is None:
            rows = [{"name": "root", "weight": 1.0, "pass_": 0.0, "vtime": 0.0, "active": False}]
            rows += [
                {"name": str(name), "weight": weight, "pass_": 0.0, "vtime": 0.0, "active": False}
                for name, weight in CLASS_WEIGHTS.items()
            ]
            session.execute(insert(FlowClass), rows)
        if session.get(SweepState, 1) is None:
            session.execute(insert(SweepState).values(id=1, last_at=0.0, reap_after=0.0, drift=0))
        if session.scalar(select(Tenant.id).limit(1)) is None:
            session.execute(insert(Tenant).values(id=DEFAULT_TENANT, name="default", weight=1.0, limits={}, created_at=db_now()))
