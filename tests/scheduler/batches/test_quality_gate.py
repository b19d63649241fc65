"""Gates and channels, by the worker's own finishing on both databases: measured, judged, rendered again, delivered."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Picture
from sqlalchemy import select

from imagefarm.imaging.metadata import read_metadata
from imagefarm.output_store import LocalOutputStore
from imagefarm.store.models import Event, ImageHash, Job
from scheduler.batches.table.seeds import next_seed
from scheduler.queue.claim import ClaimedJob
from scheduler.recovery.orphan_files import collect_orphan_files
from tests.scheduler.batches.conftest import BATCHES, BulkFarm
from tests.scheduler.batches.test_downloads import rows
from tests.scheduler.batches.test_picks import ask, decide, images
from worker.engine.results import RenderedImage, RenderedJob
from worker.leases.leased_jobs import LeasedJobs
from worker.output.finishing import Finishing
from worker.process.identity import make_identity

Pixels = NDArray[np.uint8]
Draw = Callable[[ClaimedJob, int], Pixels]


def noise(seed: int, side: int = 64) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def plain(level: int = 200) -> Pixels:
    return np.full((64, 64, 3), level, np.uint8)


def finish(farm: BulkFarm, jobs: list[ClaimedJob], draw: Draw) -> None:
    """End claimed jobs with the worker's finishing and pixels of the test's own."""
    outputs, leased_jobs = LocalOutputStore(farm.settings.outputs), LeasedJobs()
    identity = make_identity(farm.settings, farm.catalogue, device="cpu", node="w@test")
    pipeline: Any = SimpleNamespace(name="demo", entry=farm.catalogue.get("demo"), digest="ab" * 32, facts={})
    finishing = Finishing(farm.store, outputs, farm.settings, identity, leased_jobs)
    leased_jobs.add(jobs)
    for job in jobs:
        seeds = [job.recipe.seed_of(index) for index in range(job.count)]
        made = [RenderedImage(index, seed, draw(job, index), {"device": "cpu"}, []) for index, seed in enumerate(seeds)]
        finishing.submit(RenderedJob(job, made, gpu_s=0.1), pipeline)
    finishing.close()
    assert finishing.failures == 0


def render(farm: BulkFarm, draw: Draw) -> None:
    """Render all that is queued, also what is queued by that."""
    for _ in range(100):
        if not (jobs := farm.claim("wrk_a", images=16)):
            return
        finish(farm, jobs, draw)
    raise AssertionError("images are re-rolled without end")


def gate(**rules: Any) -> str:
    return json.dumps(rules)


def test_a_gate_accepts_reviews_and_renders_again(farm: BulkFarm) -> None:
    rules = gate(contrast={"at_least": 10, "otherwise": "reroll"}, exposure={"at_most": 0.9}, rerolls=2, approve=True)
    batch = farm.batch("sku,prompt\nA,good\nB,second\nC,never\nD,bright\n", gate=rules, seeds="row")["id"]

    def draw(job: ClaimedJob, index: int) -> Pixels:
        match job.recipe.prompt:
            case "good":
                return noise(1)
            case "second":
                return plain() if job.recipe.seed == 2 else noise(2)
            case "never":
                return plain()
        return np.where(noise(3) > 127, 255, 220).astype(np.uint8)

    render(farm, draw)
    farm.sweep()
    found = images(farm, batch)
    told = [(item["name"], item["scores"]["verdict"], item["pick"], item["seed"]) for item in found]
    assert told == [
        ("A", "accept", "approved", "1"),
        ("B", "reroll", "rerolled", "2"),
        ("C", "reroll", "rerolled", "3"),
        ("D", "review", None, "4"),
        ("B", "accept", "approved", str(next_seed(2))),
        ("C", "reroll", "rerolled", str(next_seed(3))),
        ("C", "review", None, str(next_seed(next_seed(3)))),
    ]
    assert found[-1]["scores"]["broken"] == ["contrast"]
    response = farm.get(batch).json or {}
    assert (response["state"], response["picks"]) == ("done", {"approved": 2, "rejected": 0, "rerolled": 3, "open": 2})
    assert [item["name"] for item in images(farm, batch, verdict="review")] == ["D", "C"]
    with farm.store.read() as session:
        jobs = session.scalars(select(Job).where(Job.batch_id == batch)).all()
        assert [job.crashes for job in jobs] == [0] * 7
        assert sorted(job.rerolls for job in jobs) == [0, 0, 0, 0, 1, 1, 2]
        judged = session.scalars(select(Event).where(Event.kind == "image.judged").order_by(Event.id)).all()
        assert len(judged) == 7
        assert {event.data.get("replaced_by") for event in judged} >= {found[1]["replaced_by"], found[2]["replaced_by"]}
    lines = [json.loads(line) for line in farm.get(batch, "/manifest.jsonl").text.splitlines()]
    assert lines[0]["scores"]["contrast"] > 10
    assert [row["verdict"] for row in rows(farm.get(batch, "/manifest.csv").text)] == [line["verdict"] for line in lines]
    with zipfile.ZipFile(io.BytesIO(farm.get(batch, "/archive.zip?pick=approved").data)) as archive:
        assert archive.namelist() == ["A.png", "B.png", "manifest.csv"]
    farm.check_books()


def test_a_sibling_that_is_too_alike_is_known(farm: BulkFarm) -> None:
    rules = gate(duplicate={"at_least": 6, "otherwise": "reroll"}, rerolls=1)
    batch = farm.batch("sku,prompt,count\nA,mug,3\nB,mug,1\n", gate=rules, seeds="row")["id"]

    def draw(job: ClaimedJob, index: int) -> Pixels:
        return noise(7 if index < 2 and job.count > 1 else job.recipe.seed)

    render(farm, draw)
    found = images(farm, batch)
    assert [(item["name"], item["scores"]["verdict"]) for item in found] == [
        ("A-1", "accept"),
        ("A-2", "reroll"),
        ("A-3", "accept"),
        ("B", "accept"),  # another row's image does not count as a sibling
        ("A-2", "accept"),
    ]
    assert (found[0]["scores"]["duplicate"], found[1]["scores"]["duplicate"]) == (None, 0)
    with farm.store.read() as session:
        assert len(session.scalars(select(ImageHash)).all()) == 4
    farm.check_books()


def test_a_full_queue_sends_it_to_review(quick_farm: BulkFarm) -> None:
    farm = quick_farm
    batch = farm.batch("sku,prompt\nA,a\n", gate=gate(contrast={"at_least": 10, "otherwise": "reroll"}))["id"]
    jobs = farm.claim("wrk_a")
    farm.submit(1)
    farm.settings.max_queued = 1
    finish(farm, jobs, lambda job, index: plain())
    (shown,) = images(farm, batch)
    assert (shown["scores"]["verdict"], shown["pick"]) == ("review", None)
    farm.check_books()


CHANNELS = [
    {"name": "white", "width": 100, "height": 60, "margin": 0.1, "format": "png"},
    {"name": "tall", "width": 45, "height": 80, "fit": "crop", "format": "jpeg"},
    {"name": "light", "width": 128, "height": 128, "format": "webp", "max_bytes": 6000},
]


def test_one_master_many_channels(farm: BulkFarm) -> None:
    batch = farm.batch("sku,prompt,count\nA,mug,1\nB,cup,2\n", channels=json.dumps([*CHANNELS, "thumb"]))["id"]
    render(farm, lambda job, index: noise(job.recipe.seed_of(index)))
    listed = rows(farm.get(batch, "/manifest.csv").text)
    names = ["A", "B-1", "B-2"]
    ends = [("light", "webp"), ("tall", "jpg"), ("thumb", "webp"), ("white", "png")]
    expected = [file for name in names for file in (f"{name}.png", *(f"{channel}/{name}.{end}" for channel, end in ends))]
    assert [row["file"] for row in listed] == expected
    assert [row["channel"] for row in listed[:5]] == ["", "light", "tall", "thumb", "white"]
    with zipfile.ZipFile(io.BytesIO(farm.get(batch, "/archive.zip").data)) as archive:
        assert archive.namelist() == [*expected, "manifest.csv"]
        sizes = {name: Picture.open(io.BytesIO(archive.read(name))).size for name in expected[:5]}
        assert list(sizes.values()) == [(64, 64), (128, 128), (45, 80), (320, 320), (100, 60)]
        assert len(archive.read("light/A.webp")) <= 6000
        white = np.asarray(Picture.open(io.BytesIO(archive.read("white/A.png"))))
        assert (white[:, :5] == 255).all()
        assert read_metadata(archive.read("tall/A.jpg"))["imagefarm"]["job"] == listed[0]["job"]
    shown = images(farm, batch)[0]
    assert [(c["channel"], c["format"], c["width"]) for c in shown["channels"]][1] == ("tall", "jpeg", 45)
    for channel in shown["channels"]:
        response = farm.client.get(channel["url"].removeprefix("http://localhost"))
        assert (response.status_code, response.headers["ETag"].strip('"')) == (200, channel["sha256"])
    assert farm.client.get(f"/api/v1/images/{shown['id']}/file?channel=nope").status_code == 404
    assert farm.client.get(f"/api/v1/images/{shown['id']}/file?channel=tall&thumb=64").status_code == 422
    outputs = LocalOutputStore(farm.settings.outputs)
    assert collect_orphan_files(farm.store, outputs, older_than_s=-10) == 0
    outputs.write(f"jobs/aa/{listed[0]['job']}/0-a9.tall.jpg", b"lost")
    assert collect_orphan_files(farm.store, outputs, older_than_s=-10) == 1
    # finals have their drafts' channels, unless they say otherwise; a picture with other channels is not taken again
    decide(farm, batch, approve=shown["id"])
    made = ask(farm, batch)["id"]
    render(farm, lambda job, index: noise(job.recipe.seed))
    assert len(rows(farm.get(made, "/manifest.csv").text)) == 5
    assert ask(farm, batch, 200)["id"] == made
    other = ask(farm, batch, channels=["thumb"])
    assert (other["counts"]["reused"], other["counts"]["queued"]) == (0, 1)
    farm.check_books()


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ({"channels": "nope"}, "channels.0", "use one of"),
        ({"channels": "thumb,thumb"}, "channels.1", "twice"),
        ({"channels": '[{"name": "x", "width": 10, "height": 100}]'}, "channels.0", "16"),
        ({"channels": '[{"name": "../x", "width": 100, "height": 100}]'}, "channels.0", ""),
        ({"channels": '[{"name": "x", "width": 99, "height": 99, "format": "png", "max_bytes": 9000}]'}, "channels.0", "quality"),
        ({"channels": '[{"name": "x", "width": 99, "height": 99, "background": "red"}]'}, "channels.0", ""),
        ({"channels": "[" + ",".join(['"thumb"'] * 13) + "]"}, "channels", ""),
        ({"gate": "{}"}, "gate", "no rule"),
        ({"gate": '{"sharpness": {}}'}, "gate.sharpness", "at_least"),
        ({"gate": '{"beauty": {"at_least": 1}}'}, "gate.beauty", ""),
        ({"gate": '{"contrast": {"at_least": 9, "at_most": 1}}'}, "gate.contrast", "no picture"),
        ({"gate": "[]"}, "gate", ""),
        ({"gate": "{"}, "gate", ""),
    ],
)
def test_what_no_picture_can_be_is_refused(shared_farm: BulkFarm, query: dict[str, str], field: str, words: str) -> None:
    for more in ({}, {"dry_run": "true"}):
        response = shared_farm.client.post(
            BATCHES, data="sku,prompt\nA,mug\n", content_type="text/csv", query_string=query | more
        )
        assert response.status_code == 422, response.text
        errors = (response.json or {})["errors"]
        assert errors[0]["field"].startswith(field), errors
        assert words in json.dumps(errors)
