"""Migrations: the same shape on both databases, forwards and backwards, and as the models say."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import insert, inspect, select, text
from sqlalchemy.exc import IntegrityError

from imagefarm.errors import SchemaMismatch
from imagefarm.store import Store
from imagefarm.store.migrate import check, current_revision, head_revision, migrate
from imagefarm.store.models import Base, FlowClass, Tenant


@pytest.fixture
def empty(database_url: str) -> Store:
    return Store(database_url, pool_size=2)


def test_up_down_up(empty: Store) -> None:
    assert migrate(empty) == head_revision()
    assert set(Base.metadata.tables) <= set(inspect(empty.reader).get_table_names())
    migrate(empty, "base")
    assert set(inspect(empty.reader).get_table_names()) == {"alembic_version"}
    assert migrate(empty) == head_revision()
    assert migrate(empty) == head_revision()  # again changes nothing
    with empty.read() as session:
        assert set(session.scalars(select(FlowClass.name))) == {"root", "interactive", "bulk"}
        assert len(session.scalars(select(Tenant)).all()) == 1
    empty.close()


def test_models_and_migrations_agree(empty: Store) -> None:
    migrate(empty)
    with empty.reader.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    empty.close()


def test_foreign_keys_are_named_as_in_the_models(empty: Store) -> None:
    migrate(empty)
    found = inspect(empty.reader)
    for name, table in Base.metadata.tables.items():
        assert {key["name"] for key in found.get_foreign_keys(name)} == {key.name for key in table.foreign_key_constraints}
    empty.close()


def test_a_name_has_one_tenant(empty: Store) -> None:
    migrate(empty)
    with pytest.raises(IntegrityError), empty.write() as session:
        session.execute(insert(Tenant).values(id="tenant_b", name="default", weight=1.0, limits={}, created_at=1.0))
    empty.close()


def test_a_newer_database_is_refused(empty: Store) -> None:
    with pytest.raises(SchemaMismatch, match="imagefarm migrate"):
        check(empty)
    migrate(empty)
    check(empty)
    with empty.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for attempt in (check, migrate):
        with pytest.raises(SchemaMismatch, match="newer"):
            attempt(empty)
    assert current_revision(empty) == "9999"
    empty.close()


def test_sqlite_is_durable(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'farm.db'}", pool_size=1)
    with store.write() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA synchronous")) == 2
    store.close()


def test_the_database_has_the_clock(empty: Store) -> None:
    import time

    assert empty.now() == pytest.approx(time.time(), abs=5)
    empty.close()
