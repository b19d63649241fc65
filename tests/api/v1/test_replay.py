"""Replay: the same recipe as a new job, and what its pictures show against the first ones."""

import io
import math

import numpy as np
import pytest
from PIL import Image as Picture

from imagefarm.store.models import Image
from scheduler.queue.replay import Verdict, compare, psnr_db
from tests.api.farm_api import FarmApi, problem


def test_a_replay_has_the_same_seeds_and_pixels(api: FarmApi) -> None:
    first = api.rendered("replayed", seed=9, count=2)
    replay = api.http.post(f"/api/v1/jobs/{first['id']}/replay").get_json()
    assert (replay["recipe_hash"], replay["count"]) == (first["recipe_hash"], 2)
    assert replay["labels"] == {"replay_of": first["id"]}
    assert api.get(f"/api/v1/jobs/{replay['id']}/replay")["verdict"] is None
    api.render(api.claim(replay["id"]))
    told = api.get(f"/api/v1/jobs/{replay['id']}/replay")
    assert (told["of"], told["verdict"]) == (first["id"], "identical")
    assert [one["verdict"] for one in told["images"]] == ["identical", "identical"]


def test_a_replay_with_the_same_idempotency_key_is_one_job(api: FarmApi) -> None:
    first = api.rendered("replayed once", seed=3)
    address, key = f"/api/v1/jobs/{first['id']}/replay", {"Idempotency-Key": "replay-once"}
    replay, again = (api.http.post(address, headers=key) for _ in range(2))
    assert (replay.status_code, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert again.get_json() == replay.get_json()


def test_only_what_succeeded_is_replayed_and_only_a_replay_compares(api: FarmApi) -> None:
    waiting = api.submit("not yet")
    problem(api.http.post(f"/api/v1/jobs/{waiting['id']}/replay"), 409)
    problem(api.http.get(f"/api/v1/jobs/{waiting['id']}/replay"), 404)


def test_a_label_gives_no_look_at_another_s_job(api: FarmApi) -> None:
    owner, stranger = api.key("replay-owner"), api.key("replay-stranger")
    secret = api.http.post("/api/v1/jobs", json={"prompt": "x"}, headers=owner).get_json()["id"]
    body = {"prompt": "y", "labels": {"replay_of": secret}}
    forged = api.http.post("/api/v1/jobs", json=body, headers=stranger).get_json()["id"]
    problem(api.http.get(f"/api/v1/jobs/{forged}/replay", headers=stranger), 404)


def png(noise: float, side: int = 32) -> bytes:
    pixels = np.random.default_rng(0).integers(20, 230, (side, side, 3)).astype(float)
    pixels += np.random.default_rng(1).normal(0, noise, pixels.shape) if noise else 0
    saved = io.BytesIO()
    Picture.fromarray(pixels.round().astype(np.uint8)).save(saved, "PNG")
    return saved.getvalue()


def test_psnr_is_what_it_is() -> None:
    assert psnr_db(png(0), png(0)) == math.inf
    assert psnr_db(png(0), png(0, 16)) is None
    assert psnr_db(png(0), png(2)) == pytest.approx(10 * math.log10(255**2 / 4.08), abs=0.3)


@pytest.mark.parametrize(("noise", "verdict"), [(0.5, Verdict.NEAR), (20.0, Verdict.DIFFERENT)])
def test_what_differs_is_named(api: FarmApi, noise: float, verdict: Verdict) -> None:
    def image(data: bytes, key: str, **audit: object) -> Image:
        api.app_context.outputs.write(key, data)
        return Image(index=0, storage_key=key, pixel_sha256=key, audit={"device": "cpu", "versions": {"torch": "1"}} | audit)

    old, new = image(png(0), f"r/{noise}-old.png"), image(png(noise), f"r/{noise}-new.png", versions={"torch": "2"})
    [told] = compare(api.app_context.outputs, [old], [new], 1)
    assert (told.verdict, told.differs) == (verdict, ("the version of torch",))
    assert told.psnr_db is not None
    assert (told.psnr_db >= 40) == (verdict is Verdict.NEAR)
    assert [one.verdict for one in compare(api.app_context.outputs, [old], [], 1)] == [Verdict.MISSING]
