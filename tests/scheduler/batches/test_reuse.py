"""Sending a table again renders only changed rows; existing images are reused, and the response says so."""

from __future__ import annotations

from sqlalchemy import select

from imagefarm.store.models import Job
from tests.scheduler.batches.conftest import BulkFarm
from tests.scheduler.batches.test_downloads import render, rows

TABLE = "sku,name,count\nA,mug,1\nB,cup,2\nC,bowl,1\n"
T = {"template": "a {{ name }}", "reuse": "true"}


def test_only_what_changed_is_rendered(farm: BulkFarm) -> None:
    first = farm.batch(TABLE, **T)
    assert first["counts"]["reused"] == 0
    render(farm)
    farm.sweep()
    changed = TABLE.replace("C,bowl,1", "C,dish,1").replace("B,cup,2", "B,cup,1") + "D,plate,1\n"
    quote = (farm.send(changed, dry_run="true", **T).json or {})["quote"]
    assert (quote["pictures"], quote["reused"]) == (4, 2)
    second = farm.batch(changed, **T)
    assert (second["counts"]["reused"], second["counts"]["succeeded"], second["counts"]["queued"]) == (2, 2, 2)
    assert [job.recipe.prompt for job in farm.claim("wrk_b", images=8)] == ["a dish", "a plate"]
    before = rows(farm.get(first["id"], "/manifest.csv").text)
    after = rows(farm.get(second["id"], "/manifest.csv").text)
    assert [row["file"] for row in after] == ["A.png", "B.png", "", ""]
    assert [row["sha256"] for row in after[:2]] == [before[0]["sha256"], before[1]["sha256"]]
    assert before[0]["job"] in after[0]["reason"]
    response = farm.client.get(f"/api/v1/jobs/{after[1]['job']}").json or {}
    assert (response["state"], response["attempt"], len(response["images"])) == ("succeeded", 0, 1)
    assert before[1]["job"] in response["warnings"][0]
    farm.check_books()


def test_a_table_that_did_not_change_is_done_at_once(farm: BulkFarm) -> None:
    farm.batch(TABLE, **T)
    render(farm)
    again = farm.batch(TABLE, **T)
    farm.sweep()
    assert (farm.get(again["id"]).json or {})["state"] == "done"
    third = farm.batch(TABLE, **T)  # the originals are found, not those that reuse them
    with farm.store.read() as session:
        assert set(session.scalars(select(Job.reuses).where(Job.batch_id == third["id"]))) == set(
            session.scalars(select(Job.reuses).where(Job.batch_id == again["id"]))
        )
    farm.check_books()


def test_more_pictures_than_exist_are_rendered(quick_farm: BulkFarm) -> None:
    quick_farm.batch(TABLE, **T)
    render(quick_farm)
    more = quick_farm.batch(TABLE.replace("A,mug,1", "A,mug,3"), **T)
    assert (more["counts"]["reused"], more["counts"]["queued"]) == (2, 1)


def test_nothing_is_reused_unasked_or_from_others(quick_farm: BulkFarm) -> None:
    from scheduler.batches.reuse import find_rendered

    quick_farm.batch(TABLE, template="a {{ name }}")
    render(quick_farm)
    assert quick_farm.batch(TABLE, template="a {{ name }}")["counts"]["reused"] == 0
    with quick_farm.store.read() as session:
        hashes = list(session.scalars(select(Job.recipe_hash)))
        assert find_rendered(session, "tenant_other", hashes) == {}
