"""Compiled statements: the same rows and the same errors as through SQLAlchemy, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import bindparam, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from imagefarm.store import Store, db_now
from imagefarm.store.compiled import CompiledStatement
from imagefarm.store.engine import is_transient
from imagefarm.store.models import Tenant

ADD = CompiledStatement(insert(Tenant))
FIND = CompiledStatement(select(Tenant.name, Tenant.weight, Tenant.limits, db_now()).where(Tenant.id == bindparam("of")))


def test_defaults_json_and_floats_come_back_as_sqlalchemy_gives_them(store: Store) -> None:
    with store.write() as session:
        sql = session.connection()
        ADD.run(sql, {"id": "tenant_a", "name": "a", "created_at": 1.5})
        name, weight, limits, now = FIND.run(sql, {"of": "tenant_a"})[0]
    assert (name, weight, limits) == ("a", 1.0, {})
    assert now == pytest.approx(store.now(), abs=60)
    with store.read() as session:
        assert session.get_one(Tenant, "tenant_a").limits == {}


def test_an_error_is_sqlalchemys_and_rolls_all_back(store: Store) -> None:
    row = {"id": "tenant_b", "name": "b", "created_at": 1.0}

    def twice() -> None:
        with store.write() as session:
            ADD.run(session.connection(), row)
            ADD.run(session.connection(), row)

    with pytest.raises(IntegrityError):
        twice()
    with store.read() as session:
        assert session.get(Tenant, "tenant_b") is None


def test_a_lost_connection_is_known_as_one_and_the_next_is_a_new_one(store: Store) -> None:
    if store.is_sqlite:
        return  # its file is never lost

    def lost() -> None:
        with store.write() as other, store.read() as session:
            sql = session.connection()
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": sql.scalar(text("SELECT pg_backend_pid()"))})
            FIND.run(sql, {"of": "nobody"})

    with pytest.raises(DBAPIError) as raised:
        lost()
    assert is_transient(raised.value)
    with store.autocommit_read() as sql:
        assert FIND.run(sql, {"of": "nobody"}) == []
