"""Picks and finals on both databases: decided once, in the responses, re-rolled under the same name, rendered once as finals."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select, update

from api.http.context import app_context_of
from imagefarm.auth import create_key
from imagefarm.store.models import Batch, Event, Job, Tenant
from imagefarm.store.models import Image as ImageRow
from scheduler.batches.review import finals, picks
from scheduler.batches.table.seeds import next_seed
from tests.scheduler.batches.conftest import BATCHES, BulkFarm
from tests.scheduler.batches.test_downloads import render, rows

TABLE = "sku,prompt,count\nA,mug,1\nB,cup,2\nC,bowl,1\nD,vase,1\n"
FINAL = {"width": 128, "height": 128}


def drafts(farm: BulkFarm, table: str = TABLE, **query: Any) -> tuple[str, dict[str, str]]:
    """A batch that is rendered, and the id of each picture by its name."""
    batch = farm.batch(table, **query)["id"]
    render(farm)
    farm.sweep()
    return batch, {item["name"]: item["id"] for item in images(farm, batch)}


def images(farm: BulkFarm, batch: str, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        response = farm.client.get(f"{BATCHES}/{batch}/images", query_string=query)
        assert response.status_code == 200, response.text
        page = response.json or {}
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


def decide(farm: BulkFarm, batch: str, status: int = 200, **decisions: str) -> dict[str, Any]:
    """Send picks, image id by action (`approve="img_1 img_2"`); the answer."""
    body = [{"image_id": image, "pick": action} for action, ids in decisions.items() for image in ids.split()]
    response = farm.client.post(f"{BATCHES}/{batch}/picks", json={"picks": body})
    assert response.status_code == status, response.text
    return dict(response.json or {})


def ask(farm: BulkFarm, batch: str, status: int = 202, **body: Any) -> dict[str, Any]:
    response = farm.client.post(f"{BATCHES}/{batch}/finals", json=FINAL | body)
    assert response.status_code == status, response.text
    return dict(response.json or {})


def test_decided_once_and_told_everywhere(farm: BulkFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picks, "CHUNK", 2)
    batch, named = drafts(farm)
    assert list(named) == ["A", "B-1", "B-2", "C", "D"]
    assert (farm.get(batch).json or {})["picks"] == {"approved": 0, "rejected": 0, "rerolled": 0, "open": 5}
    for _ in range(2):  # repeating changes nothing
        response = decide(farm, batch, approve=f"{named['A']} {named['B-2']} {named['C']}", reject=named["D"])
        assert response["picks"] == {"approved": 3, "rejected": 1, "rerolled": 0, "open": 1}
    with farm.store.read() as session:
        events = session.scalars(select(Event).where(Event.kind == "image.picked")).all()
        assert sorted((event.subject, event.data["pick"]) for event in events) == sorted(
            [(named["A"], "approved"), (named["B-2"], "approved"), (named["C"], "approved"), (named["D"], "rejected")]
        )
    assert [item["name"] for item in images(farm, batch, pick="approved", limit=1)] == ["A", "B-2", "C"]
    assert [item["name"] for item in images(farm, batch, pick="open")] == ["B-1"]
    assert decide(farm, batch, clear=named["C"], reject=named["A"])["picks"]["approved"] == 1
    shown = farm.client.get(f"/api/v1/images/{named['A']}").json or {}
    assert (shown["pick"], shown["scores"]) == ("rejected", None)
    job = farm.client.get(f"/api/v1/jobs/{shown['job_id']}").json or {}
    assert [image["pick"] for image in job["images"]] == ["rejected"]
    assert [(row["name"], row["pick"]) for row in rows(farm.get(batch, "/manifest.csv").text)] == [
        ("A", "rejected"),
        ("B-1", ""),
        ("B-2", "approved"),
        ("C", ""),
        ("D", "rejected"),
    ]
    with zipfile.ZipFile(io.BytesIO(farm.get(batch, "/archive.zip?pick=approved").data)) as archive:
        assert archive.namelist() == ["B-2.png", "manifest.csv"]
    farm.check_books()


def test_a_reroll_is_a_job_with_the_next_seed_under_the_same_name(farm: BulkFarm) -> None:
    batch, named = drafts(farm)
    for _ in range(2):
        response = decide(farm, batch, reroll=f"{named['B-2']} {named['D']}")
        assert response["picks"] == {"approved": 0, "rejected": 0, "rerolled": 2, "open": 3}
        assert (response["counts"]["accepted"], response["counts"]["queued"], response["state"]) == (6, 2, "running")
    old = {item["name"]: item for item in images(farm, batch)}
    with farm.store.read() as session:
        again = session.get_one(Job, old["B-2"]["replaced_by"])
        assert (again.name, again.from_image, again.count, again.row) == ("B-2", named["B-2"], 1, 2)
        assert int(again.recipe["seed"]) == next_seed(int(old["B-2"]["seed"]))
        before = session.scalars(select(Job).where(Job.id == old["B-2"]["job_id"])).one()
        assert again.recipe | {"seed": ""} == before.recipe | {"seed": ""}
        assert again.recipe_hash != before.recipe_hash
    render(farm)
    farm.sweep()
    assert (farm.get(batch).json or {})["state"] == "done"
    listed = [(row["name"], row["file"], row["pick"]) for row in rows(farm.get(batch, "/manifest.csv").text)]
    assert listed[2:] == [
        ("B-2", "", "rerolled"),
        ("C", "C.png", ""),
        ("D", "", "rerolled"),
        ("B-2", "B-2.png", ""),
        ("D", "D.png", ""),
    ]
    with zipfile.ZipFile(io.BytesIO(farm.get(batch, "/archive.zip").data)) as archive:
        assert sorted(archive.namelist()) == ["A.png", "B-1.png", "B-2.png", "C.png", "D.png", "manifest.csv"]
    # a replaced image can no longer be approved; its replacement can be approved and re-rolled
    refused = decide(farm, batch, 422, approve=f"{named['A']} {named['D']}")
    assert refused["errors"][0]["field"] == "picks.1.image_id"
    assert old["D"]["replaced_by"] in refused["errors"][0]["remedy"]
    assert (farm.get(batch).json or {})["picks"]["approved"] == 0
    second = images(farm, batch)[-1]
    assert (second["from_image"], second["pick"]) == (named["D"], None)
    assert decide(farm, batch, reroll=second["id"])["picks"]["rerolled"] == 3
    farm.check_books()


def test_what_cannot_be_decided_changes_nothing(farm: BulkFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, named = drafts(farm)
    other, others = drafts(farm, "sku,prompt\nX,jug\n")
    wrong = decide(farm, batch, 422, approve=f"{named['A']} {others['X']} img_01JD0000000000000000000000")
    assert [error["field"] for error in wrong["errors"]] == ["picks.1.image_id", "picks.2.image_id"]
    assert "twice" in str(decide(farm, batch, 422, approve=named["A"], reject=named["A"]))
    assert farm.client.post(f"{BATCHES}/{batch}/picks", json={"picks": []}).status_code == 422
    assert farm.client.post(f"{BATCHES}/{batch}/picks", json={"picks": [{"image_id": "x", "pick": "love"}]}).status_code == 422
    assert (farm.get(batch).json or {})["picks"]["open"] == 5
    assert "approve pictures first" in str(ask(farm, batch, 422))
    farm.act(other, "cancel")
    late = farm.batch("sku,prompt\nX,jar\n")["id"]
    render(farm)
    farm.act(late, "cancel")
    assert "cancelled" in decide(farm, late, 409, reroll=images(farm, late)[0]["id"])["detail"]
    assert farm.app is not None
    monkeypatch.setattr(app_context_of(farm.app).settings, "auth", "keys")
    headers = {"Authorization": f"Bearer {create_key(farm.store, name='k', tenant='other').key}"}
    body = {"picks": [{"image_id": named["A"], "pick": "approve"}]}
    assert farm.client.post(f"{BATCHES}/{batch}/picks", json=body, headers=headers).status_code == 404
    assert farm.client.post(f"{BATCHES}/{batch}/finals", json=FINAL, headers=headers).status_code == 404
    assert farm.client.get(f"{BATCHES}/{batch}/images", headers=headers).status_code == 404


def test_a_paused_batch_holds_its_rerolls(quick_farm: BulkFarm) -> None:
    farm = quick_farm
    batch = farm.batch(TABLE)["id"]
    (first,) = farm.claim("wrk_a", images=1)
    farm.finish(first)
    farm.act(batch, "pause")
    response = decide(farm, batch, reroll=images(farm, batch)[0]["id"])  # its drafts are not all done
    assert (response["state"], response["counts"]["held"]) == ("paused", 4)
    farm.act(batch, "resume")
    assert farm.claim("wrk_a", images=1)[0].recipe.prompt == "mug"  # before the rest
    farm.check_books()


def test_finals_are_the_approved_ones_in_another_size(farm: BulkFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finals, "CHUNK", 2)
    batch, named = drafts(farm)
    decide(farm, batch, approve=f"{named['A']} {named['B-1']} {named['B-2']}", reject=named["C"])
    made = ask(farm, batch, steps=6, name="the finals")
    assert (made["drafts"], made["name"], made["counts"]["queued"], made["counts"]["rows"]) == (batch, "the finals", 3, 2)
    with farm.store.read() as session:
        before = {image.id: (image, session.get_one(Job, image.job_id)) for image in session.scalars(select(ImageRow))}
        for job in session.scalars(select(Job).where(Job.batch_id == made["id"])):
            image, draft = before[job.from_image or ""]
            assert job.recipe == draft.recipe | {"width": 128, "height": 128, "steps": 6, "seed": image.seed}
            assert (job.count, job.row, job.labels) == (1, draft.row, draft.labels)
    assert ask(farm, batch, 200, steps=6)["id"] == made["id"]  # under way
    decide(farm, batch, approve=named["D"])
    refused = ask(farm, batch, 409, steps=6)
    assert made["id"] in refused["detail"]
    files = render(farm)
    assert len(files) == 3
    farm.sweep()
    more = ask(farm, batch, steps=6)
    assert (more["counts"]["accepted"], more["counts"]["reused"], more["counts"]["queued"]) == (4, 3, 1)
    assert len(render(farm)) == 1
    assert ask(farm, batch, 200, steps=6)["id"] == more["id"]
    assert [row["file"] for row in rows(farm.get(more["id"], "/manifest.csv").text)] == ["A.png", "B-1.png", "B-2.png", "D.png"]
    assert ask(farm, batch)["counts"]["queued"] == 4  # other steps are other pictures
    # pictures that are reused may be picked in either batch, each for itself
    decide(farm, more["id"], approve=images(farm, more["id"])[0]["id"])
    assert (farm.get(made["id"]).json or {})["picks"]["approved"] == 0
    farm.check_books()


def test_finals_are_checked_against_the_model_first(quick_farm: BulkFarm) -> None:
    farm = quick_farm
    batch, named = drafts(farm)
    decide(farm, batch, approve=named["A"])
    for body, field in (({"width": 4096}, "width"), ({"height": 130}, "height"), ({"steps": 200}, "steps")):
        assert ask(farm, batch, 422, **body)["errors"][0]["field"] == field
    assert ask(farm, batch, 422, upscale={"model": "nope"})["errors"][0]["field"] == "upscale.model"
    with farm.store.write() as session:
        session.execute(update(Tenant).values(limits={"pixels": 127 * 128}))
    assert "pixels you may ask for" in ask(farm, batch, 422)["errors"][0]["detail"]
    with farm.store.write() as session:
        session.execute(update(Tenant).values(limits={}))
        assert session.scalars(select(Batch.drafts)).all() == [None]
    batch, named = drafts(farm, "sku,prompt\nX,jar\n", model="sd15")
    decide(farm, batch, approve=named["X"])
    wide = ask(farm, batch, width=768, height=512)
    with farm.store.read() as session:
        assert "another shape" in session.scalars(select(Job.warnings).where(Job.batch_id == wide["id"])).one()[0]


def test_thousands_in_one_request(quick_farm: BulkFarm) -> None:
    farm = quick_farm
    batch = farm.batch("sku,prompt\n" + "".join(f"S{n},mug {n}\n" for n in range(600)))["id"]
    while jobs := farm.claim("wrk_a", images=64, quantum_s=1000.0):
        for job in jobs:
            farm.finish(job)
    ids = [item["id"] for item in images(farm, batch, limit=250)]
    assert len(ids) == len(set(ids)) == 600
    response = decide(farm, batch, approve=" ".join(ids[:400]), reroll=" ".join(ids[400:]))
    assert response["picks"] == {"approved": 400, "rejected": 0, "rerolled": 200, "open": 0}
    assert ask(farm, batch)["counts"]["queued"] == 400
    farm.check_books()


def test_a_subjects_scale_grows_with_the_picture(quick_farm: BulkFarm) -> None:
    farm = quick_farm
    photo = io.BytesIO()
    cut = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    cut.paste((200, 30, 30, 255), (4, 4, 16, 16))
    cut.save(photo, "PNG")
    sent = farm.client.post("/api/v1/assets", data=photo.getvalue(), content_type="image/png")
    asset = (sent.json or {})["items"][0]["id"]
    row = {"sku": "A", "prompt": "a mug", "subject": {"image": asset, "place": {"x": 0.4, "scale": 1.5}, "feather": 2}}
    response = farm.client.post(BATCHES, json={"rows": [row, row | {"sku": "B", "subject": {"image": asset}}]})
    batch = (response.json or {})["id"]
    render(farm)
    decide(farm, batch, approve=" ".join(item["id"] for item in images(farm, batch)))
    made = ask(farm, batch)
    with farm.store.read() as session:
        scaled, fitted = session.scalars(select(Job.recipe).where(Job.batch_id == made["id"]).order_by(Job.id))
    assert scaled["subject"]["place"] == {"x": 0.4, "y": 0.5, "scale": 3.0}
    assert (scaled["subject"]["image"], scaled["subject"]["feather"]) == (asset, 2)
    assert fitted["subject"]["place"]["scale"] is None  # as large as fits, there too


def test_the_archive_leaves_out_what_was_rejected(quick_farm: BulkFarm) -> None:
    batch, named = drafts(quick_farm)
    decide(quick_farm, batch, approve=named["C"], reject=named["A"])

    def archived(query: str = "") -> set[str]:
        with zipfile.ZipFile(io.BytesIO(quick_farm.get(batch, f"/archive.zip{query}").data)) as archive:
            assert (b"A.png" in archive.read("manifest.csv")) == ("A.png" in archive.namelist())
            return set(archive.namelist()) - {"manifest.csv"}

    assert archived() == {"B-1.png", "B-2.png", "C.png", "D.png"}
    assert archived("?pick=all") == {"A.png", "B-1.png", "B-2.png", "C.png", "D.png"}
    assert archived("?pick=rejected") == {"A.png"}
    assert archived("?pick=open") == {"B-1.png", "B-2.png", "D.png"}
    assert "A.png" in quick_farm.get(batch, "/manifest.csv").text
