"""A table sent again: only what changed is rendered, and the answer and the rows say what is what."""

from __future__ import annotations

import io
from typing import Any

from sqlalchemy import select

from imagefarm.store.models import Job
from scheduler.queue.finish import fail
from tests.scheduler.batches.conftest import BATCHES, BulkFarm
from tests.scheduler.batches.test_assets import picture, zipped
from tests.scheduler.batches.test_downloads import INPUT, render, rows

TABLE = "sku,name,color\nA,mug,red\nB,cup,blue\nC,bowl,green\nD,dish,white\n"
T = {"template": "a {{ color }} {{ name }}, {{ view }}", "variants": '{"view": ["front", "side"]}', "name": "Spring", "steps": 4}
NOTHING = {"reused": 0, "changed": 0, "new": 0, "unfinished": 0, "removed": 0}


def prompts(farm: BulkFarm, batch_id: str, state: str = "queued") -> list[str]:
    with farm.store.read() as session:
        where = (Job.batch_id == batch_id, Job.state == state)
        return list(session.scalars(select(Job.prompt).where(*where).order_by(Job.id)))


def rendered(farm: BulkFarm, table: str, failing: str = "", **query: Any) -> dict[str, Any]:
    batch = farm.batch(table, **query)
    render(farm, failing)
    farm.sweep()
    return farm.get(batch["id"]).json or {}


def test_only_what_changed_is_rendered(farm: BulkFarm) -> None:
    first = rendered(farm, TABLE, **T)
    assert (first["state"], first["update_of"], first["changes"]) == ("done", None, None)
    # C is another colour, D is gone, E is new, and B and A changed places
    changed = "sku,name,color\nB,cup,blue\nA,mug,red\nC,bowl,black\nE,vase,red\n"
    dry = farm.send(changed, update_of=first["id"], dry_run="true").json or {}
    wanted = NOTHING | {"reused": 4, "changed": 2, "new": 2, "removed": 2}
    assert dry["changes"] == wanted
    assert (dry["quote"]["pictures"], dry["quote"]["reused"]) == (8, 4)
    told = [(row["sku"], row["change"]) for row in dry["rows"]]
    assert told == [("B", "reused"), ("A", "reused"), ("C", "changed"), ("E", "new")]
    second = farm.batch(changed, update_of=first["id"])  # template, variants and steps are as they were
    assert (second["name"], second["update_of"], second["changes"]) == ("Spring", first["id"], wanted)
    counts = second["counts"]
    assert (counts["reused"], counts["succeeded"], counts["queued"]) == (4, 4, 4)
    assert prompts(farm, second["id"]) == ["a black bowl, front", "a black bowl, side", "a red vase, front", "a red vase, side"]
    report = rows(farm.get(second["id"], "/report.csv").text)
    assert [(row["row"], row["sku"], row["change"], row["jobs"], row["states"]) for row in report] == [
        ("1", "B", "reused", "2", "2 succeeded"),
        ("2", "A", "reused", "2", "2 succeeded"),
        ("3", "C", "changed", "2", "2 queued"),
        ("4", "E", "new", "2", "2 queued"),
        ("", "D-front", "removed", "0", ""),
        ("", "D-side", "removed", "0", ""),
    ]
    before = {row["name"]: row for row in rows(farm.get(first["id"], "/manifest.csv").text)}
    after = {row["name"]: row for row in rows(farm.get(second["id"], "/manifest.csv").text)}
    assert after["A-front"]["sha256"] == before["A-front"]["sha256"]
    assert after["C-front"]["seed"] == before["C-front"]["seed"]  # of the SKU: only what was changed is different
    render(farm)
    farm.sweep()
    third = farm.batch(changed, update_of="Spring")  # by name: the last one
    assert (third["update_of"], third["changes"]) == (second["id"], NOTHING | {"reused": 8})
    farm.sweep()
    assert (farm.get(third["id"]).json or {})["state"] == "done"
    farm.check_books()


def test_what_was_never_finished_is_rendered_again(quick_farm: BulkFarm) -> None:
    first = quick_farm.batch(TABLE, **T)
    while jobs := quick_farm.claim("wrk_a", images=16):
        for job in jobs:
            fail(quick_farm.store, job, INPUT, quick_farm.settings) if "mug" in job.recipe.prompt else quick_farm.finish(job)
    again = quick_farm.batch(TABLE, update_of=first["id"])
    assert again["changes"] == NOTHING | {"reused": 6, "unfinished": 2}
    report = rows(quick_farm.get(again["id"], "/report.csv").text)
    assert [row["change"] for row in report] == ["unfinished", "reused", "reused", "reused"]


def test_options_that_are_said_anew_win(quick_farm: BulkFarm) -> None:
    first = rendered(quick_farm, TABLE, **T)
    more = quick_farm.batch(TABLE, update_of=first["id"], variants='{"view": ["front", "back"]}', name="Summer")
    assert (more["name"], more["changes"]) == ("Summer", NOTHING | {"reused": 4, "new": 4, "removed": 4})
    finer = quick_farm.batch(TABLE, update_of=first["id"], steps=8)
    assert finer["changes"] == NOTHING | {"changed": 8}
    with quick_farm.store.read() as session:
        recipes = session.scalars(select(Job.recipe).where(Job.batch_id == finer["id"])).all()
    assert {recipe["steps"] for recipe in recipes} == {8}


def test_bad_rows_of_an_update_are_told(quick_farm: BulkFarm) -> None:
    first = rendered(quick_farm, TABLE, **T)
    table = "sku,name,color\nA,mug,red\nB,cup,\nC,bowl,black\n"
    second = quick_farm.batch(table, update_of=first["id"], on_error="skip")
    assert second["changes"] == NOTHING | {"reused": 2, "changed": 2, "removed": 4}
    report = rows(quick_farm.get(second["id"], "/report.csv").text)
    assert [(row["sku"], row["change"], row["states"]) for row in report[:3]] == [
        ("A", "reused", "2 succeeded"),
        ("B", "", "rejected"),
        ("C", "changed", "2 queued"),
    ]
    assert "'color' has no value" in report[1]["problem"]


def test_a_picture_that_changed_under_its_name(quick_farm: BulkFarm) -> None:
    def send(**colors: str) -> dict[str, Any]:
        table = "sku,prompt,image\n" + "".join(f"{name},a mug,{name}.png\n" for name in colors)
        files = {
            "file": (io.BytesIO(table.encode()), "t.csv"),
            "archive": (io.BytesIO(zipped({f"{name}.png": picture(color) for name, color in colors.items()})), "p.zip"),
        }
        query = {"update_of": "t"} if sent else {"name": "t", "model": "sd15"}
        response = quick_farm.client.post(BATCHES, data=files, query_string=query)
        assert response.status_code == 202, response.text
        sent.append(1)
        render(quick_farm)
        return response.json or {}

    sent: list[int] = []
    send(A="red", B="blue", C="green")
    again = send(A="red", B="black", C="green")
    assert again["changes"] == NOTHING | {"reused": 2, "changed": 1}


def test_what_cannot_be_brought_up_to_date(farm: BulkFarm) -> None:
    running = farm.batch(TABLE, **T)
    for query, status, says in (
        ({"update_of": running["id"]}, 409, "has open jobs"),
        ({"update_of": "Spring"}, 409, "has open jobs"),
        ({"update_of": "Autumn"}, 404, "Autumn"),
        ({"update_of": "batch_01JD0000000000000000000000"}, 404, "no batch"),
    ):
        response = farm.send(TABLE, **query)
        assert (response.status_code, says in response.text) == (status, True), response.text
    farm.act(running["id"], "cancel")
    lucky = farm.send(TABLE, update_of=running["id"], seeds="random")
    assert lucky.status_code == 422
    assert "random renders every picture again" in lucky.text
    assert farm.batch(TABLE, update_of=running["id"])["changes"] == NOTHING | {"unfinished": 8}


def test_another_tenants_batch_is_none(farm: BulkFarm, monkeypatch: Any) -> None:
    from api.http.context import app_context_of
    from imagefarm.auth import create_key

    first = rendered(farm, TABLE, **T)
    assert farm.app is not None
    monkeypatch.setattr(app_context_of(farm.app).settings, "auth", "keys")
    headers = {"Authorization": f"Bearer {create_key(farm.store, name='k', tenant='other').key}"}
    for named in (first["id"], "Spring"):
        assert farm.send(TABLE, update_of=named, headers=headers).status_code == 404
    assert farm.client.get(f"{BATCHES}/{first['id']}/report.csv", headers=headers).status_code == 404


def test_an_update_keeps_column_map_charset_and_delimiter(quick_farm: BulkFarm) -> None:
    table = "Artikel;Farbe\nA-1;红色\nA-2;白色\n".encode("gbk")
    said = {"column_map": '{"Artikel": "sku"}', "charset": "GBK", "delimiter": ";", "template": "a {{ Farbe }} mug", "steps": 4}
    first = rendered(quick_farm, table, name="Mapped", **said)
    again = quick_farm.batch(table, update_of="Mapped")
    assert again["changes"] == {**NOTHING, "reused": 2}, first
    rendered(quick_farm, table, update_of="Mapped")
    in_utf8 = "Artikel,Farbe\nA-1,红色\nA-2,黑色\n".encode()
    changes = quick_farm.batch(in_utf8, update_of="Mapped")["changes"]
    assert changes == {**NOTHING, "reused": 1, "changed": 1}


def test_a_map_of_an_update_adds_to_the_earlier_one(quick_farm: BulkFarm) -> None:
    rendered(quick_farm, "Artikel,Farbe\nA,red\n", name="Two", column_map='{"Artikel": "sku"}', template="{{ Farbe }}", steps=4)
    renamed = quick_farm.batch("Artikel,Colour\nA,red\n", update_of="Two", column_map='{"Colour": "Farbe"}')
    assert renamed["changes"] == {**NOTHING, "reused": 1}
