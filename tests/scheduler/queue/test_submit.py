"""One job is written by `submit_sql.write`, many by `admission.submit_jobs`: what they leave behind is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from imagefarm.auth import KeyQuota
from imagefarm.recipe import JobRequest
from imagefarm.store import db_now
from imagefarm.store.idempotency import KeyedResponse, Stored, take
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import Asset, Base, Job
from scheduler.assets.store import CheckedPicture, asset_row
from scheduler.queue import submit_sql
from scheduler.queue.admission import submit_jobs
from scheduler.queue.new_job import NewJob, make_job
from tests.small_farm import SmallFarm

CLOCK = {"created_at", "expires_at", "at"}
PLAIN: dict[str, Any] = {"prompt": "a red mug", "seed": 7}
FULL: dict[str, Any] = {
    "prompt": "白色背景上的红色马克杯 'quoted' \\ %s %(id)s",
    "negative_prompt": "blur",
    "model": "sd15",
    "width": 512,
    "height": 768,
    "steps": 9,
    "guidance": 4.5,
    "seed": 2**64 - 2,
    "count": 2,
    "strength": 0.6,
    "init_image": "asset_01H00000000000000000000001",
    "mask": "asset_01H00000000000000000000002",
    "priority": "bulk",
    "labels": {"sku": "A-17", "颜色": "红"},
    "custom_id": "A-17-front",
    "preview": True,
    "expires_in": 3600,
}


class UndoneError(Exception):
    """Ends a transaction without a commit."""


@contextmanager
def undone(farm: SmallFarm) -> Iterator[Session]:
    try:
        with farm.store.write() as session:
            session.scalar(select(db_now()))  # the transaction has begun, so no statement commits by itself
            yield session
            raise UndoneError
    except UndoneError:
        pass


Way = Callable[[SmallFarm, Session, NewJob, KeyQuota | None], None]


def one_by_one(farm: SmallFarm, session: Session, job: NewJob, quota: KeyQuota | None) -> None:
    context = submit_sql.read_submit_context(session, job.tenant_id, job.model, None)
    submit_sql.write(session, submit_sql.check(session, job, context, farm.settings, quota), None)


def together(farm: SmallFarm, session: Session, job: NewJob, quota: KeyQuota | None) -> None:
    submit_jobs(session, [job], farm.settings, quota=quota)


def many(farm: SmallFarm, session: Session, job: NewJob, quota: KeyQuota | None) -> None:
    """As in a table, with another job."""
    other = job._replace(id=f"{job.id[:-1]}{'0' if job.id[-1] != '0' else '1'}")
    submit_jobs(session, [job, other], farm.settings, quota=quota)


def left_behind(session: Session) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables, their times as minutes from the newest job's."""
    now = session.scalars(select(Job.created_at).order_by(Job.created_at.desc())).first() or 0.0
    found: dict[str, list[dict[str, Any]]] = {}
    for name, table in Base.metadata.tables.items():
        for row in session.execute(select(table)).mappings():
            kept = dict(row) | {column: round((row[column] - now) / 60) for column in CLOCK & set(row) if row[column] is not None}
            if name == "event":
                kept |= {"id": None}  # a sequence is not rolled back
            if name in {"job", "event", "backlog", "usage", "asset_use", "idempotency"}:
                found.setdefault(name, []).append(kept)
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


@pytest.mark.parametrize("fields", [PLAIN, FULL], ids=["plain", "full"])
@pytest.mark.parametrize("quota", [None, KeyQuota("key_a", {"images_per_day": 100})], ids=["no_limits", "key_limits"])
def test_both_ways_leave_the_same_rows(farm: SmallFarm, fields: dict[str, Any], quota: KeyQuota | None) -> None:
    with farm.store.write() as session:
        for name in ("init_image", "mask"):
            stored = asset_row(FULL[name], name, CheckedPicture(name.encode(), "png", 8, 8), name=name, tenant_id=DEFAULT_TENANT)
            session.execute(insert(Asset).values(**stored, created_at=db_now()))
    farm.submit(1, **{name: fields[name] for name in ("model", "priority") if name in fields})  # the counters are there already
    job = make_job(farm.catalogue, JobRequest.model_validate(fields), DEFAULT_TENANT, costs={"sd15": 3.5})

    def after(way: Way) -> dict[str, list[dict[str, Any]]]:
        with undone(farm) as session:
            way(farm, session, job, quota)
            return left_behind(session)

    by_itself, with_others, in_a_table = after(one_by_one), after(together), after(many)
    assert by_itself == with_others
    mine = [found for found in by_itself["job"] if found["id"] == job.id]
    assert mine == [found for found in in_a_table["job"] if found["id"] == job.id]
    assert len(by_itself["usage"]) == (2 if quota else 1)
    assert len(by_itself.get("asset_use", [])) == (2 if fields is FULL else 0)
    assert by_itself["backlog"][0]["queued"] == 2


def test_nothing_is_written_by_who_comes_second_with_a_key(farm: SmallFarm) -> None:
    keep = KeyedResponse("a-key", "0" * 64, 202, "{}")

    def write() -> None:
        with farm.store.write() as session:
            job = make_job(farm.catalogue, JobRequest(prompt="a mug"), DEFAULT_TENANT, costs={})
            # as if the first were not there
            context = submit_sql.read_submit_context(session, DEFAULT_TENANT, job.model, None)
            submit_sql.write(session, submit_sql.check(session, job, context, farm.settings, None), keep)

    write()
    with farm.store.read() as session:
        before = left_behind(session)
    with pytest.raises(submit_sql.OvertakenError):
        write()
    with farm.store.read() as session:
        assert left_behind(session) == before
    assert {name: len(rows) for name, rows in before.items()} == dict.fromkeys(
        ("job", "event", "backlog", "usage", "idempotency"), 1
    )
    with farm.store.write() as session:
        assert take(session, DEFAULT_TENANT, "a-key", "0" * 64) == Stored(202, "{}")


def test_a_write_that_fails_leaves_nothing(farm: SmallFarm) -> None:
    job = make_job(farm.catalogue, JobRequest(prompt="a mug"), DEFAULT_TENANT, costs={})

    def write(**wrong: Any) -> None:
        with farm.store.write() as session:
            context = submit_sql.read_submit_context(session, DEFAULT_TENANT, job.model, None)
            checked = submit_sql.check(session, job, context, farm.settings, None)
            submit_sql.write(session, checked._replace(**wrong), KeyedResponse("a-key", "0" * 64, 202, "{}"))

    with pytest.raises(IntegrityError, match="cost_s"):
        write(cost_s=None)
    with farm.store.read() as session:
        assert left_behind(session) == {}
    write()
    assert farm.states() == {"queued": 1}
