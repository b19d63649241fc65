"""Creating batches: every form of a table, what its jobs become, and that nothing is stored when a row is wrong."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from sqlalchemy import func, select

from imagefarm.recipe import Recipe
from imagefarm.store.models import Batch, BatchRows, Event, Idempotency, Job
from tests.scheduler.batches.conftest import BATCHES, JSON_LINES, BulkFarm

TABLE = "sku,name,color\nA-1,mug,red\nA-2,bowl,blue\nA-3,cup,green\n"
TEMPLATE = "a {{ color }} {{ name }} on white"


def jobs(farm: BulkFarm, batch_id: str) -> list[Job]:
    with farm.store.read() as session:
        return list(session.scalars(select(Job).where(Job.batch_id == batch_id).order_by(Job.id)))


def stored(farm: BulkFarm) -> dict[str, int]:
    with farm.store.read() as session:
        tables: list[Any] = [Batch, Job, BatchRows, Idempotency]
        return {table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


def test_a_csv_table_becomes_jobs(farm: BulkFarm) -> None:
    response = farm.batch(TABLE, template=TEMPLATE, name="Spring", width=64, steps=4)
    assert response["state"] == "queued"
    assert response["counts"] == {"rows": 3, "jobs": 3, "accepted": 3, "rejected": 0, "reused": 0, "held": 0, "queued": 3} | {
        "running": 0,
        "succeeded": 0,
        "failed": 0,
        "cancelled": 0,
    }
    assert response["errors"] == []
    found = jobs(farm, response["id"])
    assert [job.prompt for job in found] == ["a red mug on white", "a blue bowl on white", "a green cup on white"]
    assert [(job.row, job.name, job.labels, job.state) for job in found] == [
        (1, "A-1", {"sku": "A-1"}, "queued"),
        (2, "A-2", {"sku": "A-2"}, "queued"),
        (3, "A-3", {"sku": "A-3"}, "queued"),
    ]
    assert {job.recipe["steps"] for job in found} == {4}
    assert {job.priority_class for job in found} == {"bulk"}
    for job in found:  # the quick way to a job's row gives what the careful one would
        recipe = Recipe.model_validate(job.recipe)
        assert recipe.recipe_hash == job.recipe_hash
        assert (recipe.prompt, recipe.seed) == (job.prompt, int(job.recipe["seed"]))
    assert (farm.get(response["id"]).json or {}) | {"progress": None} == response
    farm.check_books()


def test_workers_render_it_and_the_sweep_ends_it(farm: BulkFarm) -> None:

    batch = farm.batch(TABLE, template=TEMPLATE)
    first, *rest = farm.claim("wrk_a", images=8, quantum_s=100.0)
    assert (farm.get(batch["id"]).json or {})["state"] == "running"
    farm.sweep()
    assert [item["id"] for item in (farm.client.get(BATCHES, query_string={"state": "running"}).json or {})["items"]] == [
        batch["id"]
    ]
    for job in (first, *rest):
        farm.finish(job)
    farm.sweep()
    response = farm.get(batch["id"]).json or {}
    assert (response["state"], farm.counts(batch["id"])) == ("done", {"succeeded": 3})
    assert response["finished_at"] is not None
    farm.check_books()


def test_variants_multiply_and_feed_the_template(farm: BulkFarm) -> None:
    variants = {"view": ["front", "side"], "steps": [4, 8]}
    response = farm.batch(
        "sku,name\nA,mug\nB,cup\n",
        template="{{ name }}, {{ view }}",
        variants=json.dumps(variants),
        name_pattern="{sku}-{view}-{steps}",
    )
    assert (response["counts"]["rows"], response["counts"]["jobs"]) == (2, 8)
    found = jobs(farm, response["id"])
    assert [job.name for job in found[:4]] == ["A-front-4", "A-front-8", "A-side-4", "A-side-8"]
    assert [job.recipe["steps"] for job in found[:4]] == [4, 8, 4, 8]
    assert found[0].labels == {"sku": "A", "view": "front", "steps": "4"}
    assert found[2].prompt == "mug, side"
    assert len({job.recipe["seed"] for job in found}) == 8


def test_seeds_policies(quick_farm: BulkFarm) -> None:
    table = "sku,name\nA,mug\nB,cup\n"
    variants = json.dumps({"view": ["front", "side"]})

    def seeds(**query: Any) -> list[int]:
        response = quick_farm.batch(table, template="{{ name }} {{ view }}", variants=variants, **query)
        return [int(job.recipe["seed"]) for job in jobs(quick_farm, response["id"])]

    assert seeds(seeds="fixed", seed=7) == seeds(seed=7) == [7] * 4
    assert seeds(seeds="row", seed=100) == [101, 101, 102, 102]
    of_sku = seeds()
    assert len(set(of_sku)) == 4
    assert seeds(seeds="sku") == of_sku  # the same table gives the same pictures
    assert seeds(seeds="sku", seed=1) != of_sku
    drawn = seeds(seeds="random")
    assert len({*drawn, *seeds(seeds="random")}) == 8


def test_cells_as_spreadsheets_write_them(quick_farm: BulkFarm) -> None:
    table = '\ufeff"sku";"name";"note"\r\n"A";"mug ""large""\nred";"a;b"\r\n\r\n"B";"cup";\r\n'
    for body, query in ((table.encode(), {}), (table.encode("utf-16"), {"charset": "utf-16"})):
        response = quick_farm.batch(body, template="{{ name }}{% if note %} {{ note }}{% endif %}", **query)
        assert [(job.row, job.prompt) for job in jobs(quick_farm, response["id"])] == [(1, 'mug "large"\nred a;b'), (3, "cup")]


def test_columns_override_defaults(quick_farm: BulkFarm) -> None:
    table = "Prompt,SKU,Seed,steps,count,custom_id,note\na mug,A,18446744073709551615,,2,x-1,hello\na cup,B,,12,,,\n"
    response = quick_farm.batch(table, steps=6, seed=5, seeds="row", labels="note")
    one, two = jobs(quick_farm, response["id"])
    assert (one.recipe["seed"], one.recipe["steps"], one.count, one.custom_id) == ("18446744073709551615", 6, 2, "x-1")
    assert (two.recipe["seed"], two.recipe["steps"], two.count, two.custom_id) == ("7", 12, 1, None)
    assert (one.labels, two.labels) == ({"sku": "A", "note": "hello"}, {"sku": "B"})


def test_the_other_forms_give_the_same_jobs(quick_farm: BulkFarm) -> None:
    rows = [{"sku": "A-1", "name": "mug", "color": "red"}, {"sku": "A-2", "name": "bowl", "color": "blue"}]
    csv = "sku,name,color\nA-1,mug,red\nA-2,bowl,blue\n"
    lines = "\n".join(json.dumps(row) for row in rows)
    batches = [
        quick_farm.batch(csv, template=TEMPLATE, steps=5),
        quick_farm.batch("\ufeff" + csv.replace(",", ";").replace("\n", "\r\n"), template=TEMPLATE, steps=5),
        quick_farm.batch("sep=;\r\n" + csv.replace(",", ";"), template=TEMPLATE, steps=5),
        quick_farm.batch(csv.replace(",", "\t"), template=TEMPLATE, steps=5),
        quick_farm.batch(csv.encode("gb18030"), template=TEMPLATE, steps=5, charset="gb18030"),
        quick_farm.batch(lines, JSON_LINES, template=TEMPLATE, steps=5),
        quick_farm.batch(
            json.dumps({"name": "j", "template": TEMPLATE, "defaults": {"steps": 5}, "rows": rows}), "application/json"
        ),
    ]
    for name, body in (("t.csv", csv), ("t.jsonl", lines)):
        form = {"file": (io.BytesIO(body.encode()), name), "template": TEMPLATE, "steps": "5"}
        response = quick_farm.client.post(BATCHES, data=form)
        assert response.status_code == 202, response.text
        batches.append(dict(response.json or {}))
    hashes = [[job.recipe_hash for job in jobs(quick_farm, batch["id"])] for batch in batches]
    assert len(hashes[0]) == 2
    assert all(found == hashes[0] for found in hashes)


def test_openai_batch_lines(quick_farm: BulkFarm) -> None:
    line = {
        "custom_id": "request-1",
        "method": "POST",
        "url": "/v1/images/generations",
        "body": {"model": "demo", "prompt": "a mug", "size": "64x64", "n": 2},
    }
    response = quick_farm.batch(json.dumps(line), JSON_LINES)
    (job,) = jobs(quick_farm, response["id"])
    assert (job.custom_id, job.count, job.prompt, job.name) == ("request-1", 2, "a mug", "request-1")
    bad = quick_farm.send(json.dumps(line | {"url": "/v1/chat/completions"}), JSON_LINES)
    assert bad.status_code == 422


def test_one_bad_row_refuses_all(farm: BulkFarm) -> None:
    response = farm.send("sku,name,steps\nA,mug,4\nB,cup,many\nC,,4\n", template="a {{ name }}")
    assert response.status_code == 422
    errors = (response.json or {})["errors"]
    assert [(error["row"], error["field"]) for error in errors] == [(2, "steps"), (3, "template")]
    assert "name" in errors[1]["detail"]
    assert all(error["remedy"] for error in errors)
    assert stored(farm) == {"batch": 0, "job": 0, "batch_rows": 0, "idempotency": 0}


def test_skip_leaves_bad_rows_out(farm: BulkFarm) -> None:
    table = "sku,name,steps\nA,mug,4\nB,cup,many\nC,,4\nD,bowl,4\n"
    variants = json.dumps({"view": ["front", "side"]})
    response = farm.batch(table, template="a {{ name }} {{ view }}", on_error="skip", variants=variants)
    counts = response["counts"]
    assert (counts["rows"], counts["jobs"], counts["accepted"], counts["rejected"], counts["queued"]) == (4, 8, 4, 4, 4)
    assert [error["row"] for error in response["errors"]] == [2, 3]
    assert [job.row for job in jobs(farm, response["id"])] == [1, 1, 4, 4]
    none = farm.send("sku,name\nA,\n", template="a {{ name }}", on_error="skip")
    assert none.status_code == 422


def test_a_dry_run_tells_and_stores_nothing(farm: BulkFarm) -> None:
    farm.worker("wrk_a")
    farm.submit(2)
    table = "sku,name\n" + "".join(f"S{n},thing {n}\n" for n in range(10)) + "S99,\n"
    before = stored(farm)
    response = farm.send(table, template="a {{ name }}", dry_run="true", count=2)
    assert response.status_code == 200, response.text
    body = response.json or {}
    assert (body["id"], body["state"], body["urls"]) == (None, None, None)
    assert body["counts"] | {"rows": 11, "jobs": 11, "accepted": 10, "rejected": 1} == body["counts"]
    assert [error["row"] for error in body["errors"]] == [11]
    quote = body["quote"]
    assert (quote["pictures"], quote["prompts"]) == (20, ["a thing 0", "a thing 1", "a thing 2"])
    assert quote["gpu_seconds"] == pytest.approx(20 * 0.15)
    assert quote["workers"] == 1
    assert quote["expected_finish_s"] == pytest.approx(22 * 0.15, abs=0.1)
    first, last = body["rows"][0], body["rows"][10]
    assert first == {
        "row": 1,
        "sku": "S0",
        "jobs": 1,
        "pictures": 2,
        "gpu_seconds": pytest.approx(0.3),
        "prompt": "a thing 0",
    } | {
        "change": None,
        "errors": [],
    }
    assert (last["row"], last["sku"], last["jobs"], last["prompt"]) == (11, "S99", 0, "")
    assert last["errors"] == body["errors"]
    assert stored(farm) == before


def test_the_same_key_answers_with_the_same_batch(farm: BulkFarm) -> None:
    headers = {"Idempotency-Key": "spring-1"}
    first = farm.send(TABLE, headers=headers, template=TEMPLATE)
    again = farm.send(TABLE, headers=headers, template=TEMPLATE)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json == first.json
    other = farm.send(TABLE.replace("red", "pink"), headers=headers, template=TEMPLATE)
    assert other.status_code == 422
    assert "Idempotency-Key" in (other.json or {})["detail"]
    assert stored(farm)["batch"] == 1
    bad = farm.send("sku,name\nA,\n", headers={"Idempotency-Key": "k2"}, template="{{ name }}")
    assert bad.status_code == 422
    mended = farm.send("sku,name\nA,mug\n", headers={"Idempotency-Key": "k2"}, template="{{ name }}")
    assert mended.status_code == 202


def test_a_full_queue_refuses_and_cleans_up(farm: BulkFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    from api.http.context import app_context_of

    assert farm.app is not None
    monkeypatch.setattr(app_context_of(farm.app).settings, "max_queued_per_tenant", 2)
    too_many = farm.send("prompt\na\nb\nc\n", headers={"Idempotency-Key": "k"})
    [error] = (too_many.json or {})["errors"]
    assert (too_many.status_code, error["remedy"]) == (422, "send it in several batches")
    assert "max_queued_per_tenant = 2" in error["detail"]
    assert stored(farm) == {"batch": 0, "job": 0, "batch_rows": 0, "idempotency": 0}
    farm.batch("prompt\nx\n")
    before = stored(farm)
    response = farm.send("prompt\na\nb\n", headers={"Idempotency-Key": "k"})
    assert response.status_code == 429, response.text
    told = response.json or {}
    assert (told["limit"], told["value"]) == ("max_queued_per_tenant", 2)
    assert told["detail"] == "your queue is full: 1 of 2 jobs wait, and 2 more do not fit (max_queued_per_tenant = 2)"
    assert int(response.headers["Retry-After"]) >= 1
    assert stored(farm) == before, "refused before anything is stored"


def test_the_audit_knows_every_job(quick_farm: BulkFarm) -> None:
    response = quick_farm.batch(TABLE, template=TEMPLATE)
    with quick_farm.store.read() as session:
        kinds = dict(session.execute(select(Event.kind, func.count()).group_by(Event.kind)).all())
        text = " ".join(str(data) for data in session.scalars(select(Event.data)))
    assert kinds["job.submitted"] == 3
    assert kinds["batch.submitted"] == 1
    assert "mug" not in text  # personal text stays out of the chain
    assert response["id"]


def test_lists_page_and_filter(quick_farm: BulkFarm) -> None:
    ids = [quick_farm.batch("prompt\na mug\n", name=f"b{n}")["id"] for n in range(5)]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = quick_farm.client.get(BATCHES, query_string=query)
        assert page.status_code == 200, page.text
        body = page.json or {}
        seen += [item["id"] for item in body["items"]]
        if body["next_cursor"] is None:
            break
        assert 'rel="next"' in page.headers["Link"]
        query["cursor"] = body["next_cursor"]
    assert seen == ids[::-1]
    assert quick_farm.client.get(BATCHES, query_string={"cursor": "forged"}).status_code == 422
