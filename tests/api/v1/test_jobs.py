"""Jobs over HTTP: submit, get, list at any depth, wait, cancel, retry."""

from __future__ import annotations

import threading
import time
from urllib.parse import urlsplit

import pytest

from imagefarm.recipe import JobRequest
from imagefarm.redis import JobProgress, connect_redis, publish_progress
from imagefarm.states import WorkerState
from imagefarm.store import jobs
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import Job
from scheduler.queue.admission import submit_jobs
from scheduler.queue.cancel import cancel_where
from scheduler.queue.new_job import make_job
from scheduler.queue.retry import Failure, FailureClass
from scheduler.queue.workers import heartbeat
from tests.api.farm_api import FarmApi, problem

PROMPT = "白色背景上的红色马克杯"


def test_a_submitted_job_answers_as_agreed(api: FarmApi) -> None:
    body = {
        "prompt": PROMPT,
        "negative_prompt": "",
        "model": "demo",
        "width": 64,
        "height": 64,
        "steps": 8,
        "guidance": 0,
        "sampler": None,
        "seed": 42,
        "count": 2,
        "loras": [],
        "init_image": None,
        "strength": None,
        "upscale": None,
        "format": "png",
        "quality": None,
        "priority": "interactive",
        "labels": {"sku": "A-17"},
        "custom_id": "A-17-front",
    }
    response = api.http.post("/api/v1/jobs", json=body)
    assert response.status_code == 202
    job = response.get_json()
    assert response.headers["Location"] == job["urls"]["self"] == f"http://localhost/api/v1/jobs/{job['id']}"
    assert job["state"] == "queued"
    assert job["recipe"]["seed"] == "42"
    assert job["recipe"]["prompt"] == PROMPT
    assert len(job["recipe_hash"]) == 64
    assert (job["count"], job["attempt"], job["batch_id"], job["error"]) == (2, 0, None, None)
    assert job["progress"] == {"step": 0, "steps": 8}
    assert (job["images"], job["warnings"], job["started_at"], job["finished_at"]) == ([], [], None, None)
    assert (job["labels"], job["custom_id"]) == ({"sku": "A-17"}, "A-17-front")
    assert job["pending_reason"] == {"code": "worker_starting", "message": "The worker is starting."}
    assert job["created_at"].endswith("Z")
    assert PROMPT in response.text  # not \u-escaped: people read this


def test_the_largest_seed_stays_exact(api: FarmApi) -> None:
    for seed in (2**64 - 1, str(2**64 - 1)):
        job = api.submit(seed=seed)
        assert api.get(f"/api/v1/jobs/{job['id']}")["recipe"]["seed"] == "18446744073709551615"


def test_a_pending_reason_has_a_code_a_message_and_its_values(api: FarmApi) -> None:
    heartbeat(api.app_context.store, "worker_1", WorkerState.READY, resident=["demo"], load={})
    before, second = api.submit()["pending_reason"].get("ahead", 0), api.submit()
    message = f"Your jobs ahead of this one: {before + 1}."
    assert second["pending_reason"] == {"code": "jobs_ahead", "message": message, "ahead": before + 1}
    assert api.get(f"/api/v1/jobs/{second['id']}")["pending_reason"] == second["pending_reason"]


def test_a_job_from_queued_to_succeeded(api: FarmApi) -> None:
    job_id = api.submit(count=2, seed=7)["id"]
    claimed = api.claim(job_id)
    progress = JobProgress(job_id, claimed.tenant_id, {"step": 3, "steps": 8})
    publish_progress(api.app_context.redis, api.app_context.settings.redis_prefix, [progress])
    running = api.get(f"/api/v1/jobs/{job_id}")
    assert (running["state"], running["progress"], running["attempt"]) == ("running", {"step": 3, "steps": 8}, 1)
    assert running["started_at"]
    api.render(claimed)
    done = api.get(f"/api/v1/jobs/{job_id}")
    assert (done["state"], done["progress"]) == ("succeeded", {"step": 8, "steps": 8})
    assert [(image["index"], image["seed"]) for image in done["images"]] == [(0, "7"), (1, "8")]
    assert done["images"][0]["url"].endswith(f"/api/v1/images/{done['images'][0]['id']}/file")
    assert done["finished_at"] >= done["started_at"] >= done["created_at"]


def test_a_failed_job_says_why_and_can_be_retried(api: FarmApi) -> None:
    from scheduler.queue.finish import fail

    job_id = api.submit()["id"]
    fail(
        api.app_context.store,
        api.claim(job_id),
        Failure(FailureClass.MODEL, "model_invalid", "no weights"),
        api.app_context.settings,
    )
    failed = api.get(f"/api/v1/jobs/{job_id}")
    assert failed["error"] == {"code": "model_invalid", "detail": "no weights"}
    for _ in range(2):  # repeating does no harm
        again = api.http.post(f"/api/v1/jobs/{job_id}/retry")
        assert again.status_code == 202
        assert (again.get_json()["state"], again.get_json()["error"]) == ("queued", None)
    api.render(api.claim(job_id))
    assert problem(api.http.post(f"/api/v1/jobs/{job_id}/retry"), 409)["type"] == "/problems/conflict"
    api.inside.check_books()


def test_cancel_is_idempotent_and_final_states_refuse_it(api: FarmApi) -> None:
    queued = api.submit()["id"]
    for _ in range(3):
        response = api.http.post(f"/api/v1/jobs/{queued}/cancel")
        assert response.status_code == 200
        assert response.get_json()["state"] == "cancelled"
    running = api.submit()["id"]
    api.claim(running)
    assert api.http.post(f"/api/v1/jobs/{running}/cancel").get_json()["state"] == "cancelled"
    done = api.rendered()["id"]
    assert "succeeded" in problem(api.http.post(f"/api/v1/jobs/{done}/cancel"), 409)["detail"]
    api.inside.check_books()


def test_prefer_wait_answers_when_the_job_ends(api: FarmApi) -> None:
    def work() -> None:
        while not (claimed := api.inside.claim("worker_1", images=1)):
            time.sleep(0.02)
        time.sleep(0.2)
        for job in claimed:
            api.render(job)

    while rest := api.inside.claim("worker_1", images=1):
        api.render(rest[0])
    worker = threading.Thread(target=work)
    worker.start()
    began = time.monotonic()
    response = api.http.post("/api/v1/jobs", json={"prompt": "a cup"}, headers={"Prefer": "respond-async, wait=20"})
    took = time.monotonic() - began
    worker.join()
    assert response.status_code == 200
    assert response.headers["Preference-Applied"] == "wait=20"
    assert response.get_json()["state"] == "succeeded"
    assert len(response.get_json()["images"]) == 1
    assert took < 1.9  # woken by the event, not by looking again after POLL_S


def test_prefer_wait_gives_up_in_time(api: FarmApi) -> None:
    began = time.monotonic()
    response = api.http.post("/api/v1/jobs", json={"prompt": "a cup"}, headers={"Prefer": "wait=1"})
    assert response.status_code == 202
    assert 0.9 < time.monotonic() - began < 5
    assert api.app_context.events.streams == 0


@pytest.mark.parametrize("prefer", ["wait=abc", "wait=-5", "wait", "wait=1e9", "xwait=30", "return=minimal"])
def test_a_preference_that_means_nothing_is_ignored(api: FarmApi, prefer: str) -> None:
    assert api.http.post("/api/v1/jobs", json={"prompt": "a cup"}, headers={"Prefer": prefer}).status_code == 202


@pytest.fixture(scope="module")
def listed(api: FarmApi) -> list[str]:
    """Ids of 230 jobs, oldest first, written in two transactions."""
    jobs = []
    for number in range(230):
        labels = {"list": "yes", "part": str(number % 10)}
        request = JobRequest(prompt=f"picture 图 {number} of a list", model="sd15", custom_id=f"row-{number}", labels=labels)
        jobs.append(make_job(api.app_context.catalogue, request, DEFAULT_TENANT, costs={}))
    ids = [job.id for job in jobs]
    for half in (jobs[:100], jobs[100:]):
        with api.app_context.store.write() as session:
            submit_jobs(session, half, api.app_context.settings)
        time.sleep(0.01)
    with api.app_context.store.write() as session:
        cancel_where(session, [Job.id.in_(ids[:5])], by="test")
    return ids


class TestLists:
    """Walks through the list."""

    def walk(self, api: FarmApi, url: str) -> list[str]:
        """Every id of a list, by the `Link` header to its end."""
        ids: list[str] = []
        while url:
            parts = urlsplit(url)
            response = api.http.get(f"{parts.path}?{parts.query}")
            assert response.status_code == 200, response.text
            ids += [job["id"] for job in response.get_json()["items"]]
            link = response.headers.get("Link", "")
            assert bool(link) == bool(response.get_json()["next_cursor"])
            url = link.removeprefix("<").partition(">")[0]
        return ids

    def test_pages_meet_without_gap_or_double(self, api: FarmApi, listed: list[str]) -> None:
        walked = self.walk(api, "/api/v1/jobs?label=list:yes&limit=7")
        assert walked == listed[::-1]

    def test_newcomers_do_not_shift_pages(self, api: FarmApi, listed: list[str]) -> None:
        first = api.get("/api/v1/jobs?label=list:yes&limit=100")
        api.submit("a latecomer", labels={"late": "yes"})
        second = api.get("/api/v1/jobs", query_string={"label": "list:yes", "limit": 100, "cursor": first["next_cursor"]})
        ids = [job["id"] for job in first["items"] + second["items"]]
        assert ids == listed[::-1][:200]

    @pytest.mark.parametrize(
        ("query", "wanted"),
        [
            ("custom_id=row-17", [17]),
            ("custom_id=row-17&state=cancelled", []),
            ("label=part:3&label=list:yes&limit=200", range(3, 230, 10)),
            ("text=图 22", [220, 221, 222, 223, 224, 225, 226, 227, 228, 229, 22]),
            ("text=PICTURE 图 229 OF", [229]),
            ("text=100%25", []),
            ("label=list:yes&state=cancelled", range(5)),
            ("label=list:yes&state=cancelled&state=failed&limit=2", range(5)),
            ("state=cancelled&custom_id=row-2", [2]),
            ("state=queued&state=cancelled&model=sd15&label=list:yes&label=part:1&limit=3", range(1, 230, 10)),
            ("label=list:no", []),
            ("model=sd15-lcm", []),
            ("model=sd15&limit=200", range(230)),
            ("batch=batch_x", []),
        ],
    )
    def test_filters(self, api: FarmApi, listed: list[str], query: str, wanted: range | list[int]) -> None:
        expected = sorted((listed[number] for number in wanted), reverse=True)
        assert self.walk(api, f"/api/v1/jobs?{query}") == expected

    def test_a_search_folds_the_case_of_every_script(self, api: FarmApi) -> None:
        found = api.submit("Ein \u00c4PFELCHEN auf \u041a\u0420\u0410\u0421\u041d\u041e\u041c")["id"]
        for text in ("\u00e4pfelchen", "\u00c4pfel", "\u043a\u0440\u0430\u0441\u043d\u043e\u043c"):
            assert self.walk(api, f"/api/v1/jobs?text={text}") == [found]

    def test_times(self, api: FarmApi, listed: list[str]) -> None:
        middle = api.get(f"/api/v1/jobs/{listed[100]}")["created_at"]
        after = self.walk(api, f"/api/v1/jobs?label=list:yes&created_after={middle}&limit=200")
        before = self.walk(api, f"/api/v1/jobs?label=list:yes&created_before={middle}&limit=200")
        assert sorted(after + before) == listed
        assert listed[110] in after
        assert listed[90] in before

    def test_a_rare_label_is_found_across_windows(self, api: FarmApi, listed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jobs, "FIRST_SCAN", 20)
        monkeypatch.setattr(jobs, "SCAN_S", 0.0)
        assert self.walk(api, "/api/v1/jobs?label=part:4&limit=5") == [listed[n] for n in range(224, -1, -10)]
        assert self.walk(api, "/api/v1/jobs?custom_id=row-1&label=part:1") == [listed[1]]

    @pytest.mark.parametrize("cursor", ["x", "", "AAAA", "💥", "a" * 200, "=", "eyJpZCI6MX0", "AAAAAAAAAAAAam9iXzAx"])
    def test_a_forged_cursor_is_refused(self, api: FarmApi, cursor: str) -> None:
        body = problem(api.http.get("/api/v1/jobs", query_string={"cursor": cursor}), 422)
        assert body["errors"][0]["field"] == "cursor"

    def test_a_cursor_belongs_to_its_query(self, api: FarmApi, listed: list[str]) -> None:
        cursor = api.get("/api/v1/jobs?label=list:yes&limit=3")["next_cursor"]
        flipped = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
        for query in ({"cursor": cursor}, {"cursor": flipped, "label": "list:yes"}):
            assert problem(api.http.get("/api/v1/jobs", query_string=query), 422)["errors"][0]["field"] == "cursor"

    def test_lists_carry_images_but_ask_no_reason(self, api: FarmApi, listed: list[str]) -> None:
        done = api.rendered(count=2, custom_id="with-images")
        [item] = api.get("/api/v1/jobs?custom_id=with-images")["items"]
        assert item == done | {"pending_reason": None}


@pytest.mark.parametrize(
    "job_id",
    [
        "job_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "img_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "job_x",
        "💥",
        "%00",
        "a%ED%A0%80",
        "..%2f..%2fetc",
        "x" * 3000,
    ],
)
def test_an_unknown_job_is_not_found(api: FarmApi, job_id: str) -> None:
    for method, tail in (("GET", ""), ("POST", "/cancel"), ("POST", "/retry"), ("GET", "/events")):
        problem(api.http.open(f"/api/v1/jobs/{job_id}{tail}", method=method), 404)


def test_without_redis_jobs_are_still_taken(api: FarmApi, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = api.app_context.settings.model_copy(update={"redis_url": "unix:///nowhere/redis.sock"})
    away = connect_redis(nowhere, timeout_s=1)
    with monkeypatch.context() as patch:
        patch.setattr(api.app_context.progress, "redis", away)
        patch.setattr(api.app_context.ticket_sender, "redis", away)
        job_id = api.submit()["id"]
        api.claim(job_id)
        assert api.get(f"/api/v1/jobs/{job_id}")["progress"] == {"step": 0, "steps": 8}
        assert api.app_context.progress.failures == 1
        api.get(f"/api/v1/jobs/{job_id}")
        assert api.app_context.progress.failures == 1  # it rests before it asks again
    api.http.post(f"/api/v1/jobs/{job_id}/cancel")


def test_all_that_match_are_changed_if_no_more_than_seen(api: FarmApi) -> None:
    for number in range(3):
        api.submit(labels={"bulk": "a" if number else "b"})
    body = {"label": ["bulk:a"], "state": ["queued"]}
    looked = api.http.post("/api/v1/jobs/cancel", json=body).get_json()
    assert looked == {"matched": 2, "changed": 0}
    assert problem(api.http.post("/api/v1/jobs/cancel", json=body | {"expected": 1}), 409)["detail"].startswith("more than 1")
    assert api.http.post("/api/v1/jobs/cancel", json=body | {"expected": 2}).get_json() == {"matched": 2, "changed": 2}
    listed = api.get("/api/v1/jobs?label=bulk:a")["items"]
    assert {job["state"] for job in listed} == {"cancelled"}
    assert api.get("/api/v1/jobs?label=bulk:b")["items"][0]["state"] == "queued"
    again = {"label": ["bulk:a"], "expected": 2}
    headers = {"Idempotency-Key": "bulk-again"}
    first = api.http.post("/api/v1/jobs/retry", json=again, headers=headers)
    assert first.get_json() == {"matched": 2, "changed": 2}
    replayed = api.http.post("/api/v1/jobs/retry", json=again, headers=headers)
    assert (replayed.get_json(), replayed.headers["Idempotency-Replayed"]) == (first.get_json(), "true")
    for bad, field in (
        ({"expected": -1}, "expected"),
        ({"expected": True}, "expected"),
        ({"state": ["odd"]}, "state"),
        ({"lable": ["a:b"]}, "lable"),
    ):
        errors = problem(api.http.post("/api/v1/jobs/cancel", json=bad), 422)["errors"]
        assert errors[0]["field"].startswith(field)
