"""The worker as it runs: Celery's parent and child, the demo model, redis-server, SQLite; killed, drained, cancelled."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image as PillowImage
from sqlalchemy import select, update

from imagefarm.event_publisher import EventPublisher
from imagefarm.imaging.metadata import read_metadata
from imagefarm.imaging.png import pixel_sha256
from imagefarm.redis import progress_key
from imagefarm.settings import PROJECT_ROOT
from imagefarm.states import WorkerState
from imagefarm.store.models import Attempt, Job, Model
from scheduler.queue.cancel import cancel_job
from scheduler.queue.workers import send_command, set_desired_state
from scheduler.recovery.orphan_files import collect_orphan_files
from scheduler.tickets import waiting
from tests.farm import CELERY, Farm

LONG = {"steps": 50, "count": 16}
"""A job of several seconds."""


@pytest.fixture(scope="module")
def farm(starts_process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One farm for all tests here, with one worker; each test leaves it idle. Its model `broken` has weights cut short."""
    folder = tmp_path_factory.mktemp("farm")
    shutil.copytree(PROJECT_ROOT / "models" / "demo", folder / "broken")
    weights = folder / "broken/transformer/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    text = (PROJECT_ROOT / "models.toml").read_text("utf-8").replace('"models/demo"', f'"{PROJECT_ROOT / "models/demo"}"')
    demo = text[text.index("[models.demo]") : text.index("[models.z-image-turbo]")]
    broken = demo.replace("[models.demo]", "[models.broken]").replace(f"{PROJECT_ROOT}/models/demo", "broken")
    (folder / "models.toml").write_text(text + broken, "utf-8")
    with Farm(folder, worker_models=["demo", "sd-turbo", "broken"], models_file=folder / "models.toml") as farm:
        farm.store.listener = EventPublisher(farm.redis, farm.settings.redis_prefix)
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("REMAP_SIGTERM", "SIGQUIT")  # as some start Celery; a drain must still work
            farm.start_worker()
        yield farm


@pytest.fixture(autouse=True)
def _idle(farm: Farm) -> Iterator[None]:
    yield
    if "w1" in farm.processes:
        farm.wait_until(lambda: farm.worker_state() == WorkerState.READY, 60, "the worker is idle again")


def assert_files_are_rows(farm: Farm) -> None:
    """Every file has its row and every row its file, byte for byte, pixel for pixel."""
    rows = farm.images()
    farm.wait_until(lambda: farm.files() == {row.storage_key for row in rows}, 5, "files and rows are the same")
    for row in rows:
        data = farm.outputs.read(row.storage_key)
        assert hashlib.sha256(data).hexdigest() == row.sha256
        with PillowImage.open(farm.outputs.path(row.storage_key)) as image:
            assert pixel_sha256(*image.size, image.tobytes()) == row.pixel_sha256


def wait_for_step(farm: Farm, job_id: str, step: int) -> None:
    """Wait until a running job reports that it is at `step`."""
    key = progress_key(farm.settings.redis_prefix, job_id)

    def reached() -> bool:
        text = farm.redis.get(key)
        return text is not None and json.loads(str(text))["step"] >= step

    farm.wait_until(reached, 60, f"job {job_id} is at step {step}")


def test_jobs_are_rendered_and_everything_agrees(farm: Farm) -> None:
    same = {"prompt": "a red mug on a white background", "seed": 42}
    ids = farm.submit_many([same, same, same | {"seed": 43}, {"prompt": "白色背景上的蓝色花瓶", "seed": 1, "count": 3}])
    assert set(farm.wait_for_jobs(ids).values()) == {"succeeded"}
    assert_files_are_rows(farm)
    first, second, third = (farm.images(job_id)[0] for job_id in ids[:3])
    assert first.pixel_sha256 == second.pixel_sha256
    assert first.pixel_sha256 != third.pixel_sha256
    assert [image.seed for image in farm.images(ids[3])] == ["1", "2", "3"]

    found = read_metadata(farm.outputs.read(farm.images(ids[3])[2].storage_key))
    assert found["settings"]["Prompt"] == "白色背景上的蓝色花瓶"
    assert (found["imagefarm"]["job"], found["imagefarm"]["index"]) == (ids[3], 2)
    with farm.store.read() as session:
        assert session.get_one(Model, "demo").digest == first.audit["model"]["digest"] == found["imagefarm"]["model_digest"]
    pixels = np.asarray(PillowImage.open(farm.outputs.path(first.storage_key))).astype(int)
    assert pixels[2:8, 2:8].mean() > 200, "the background is white"
    middle = pixels[24:44, 24:44].reshape(-1, 3)
    reddest = middle[np.argmax(middle[:, 0] - middle[:, 2])]
    assert reddest[0] - reddest[2] > 80, "the mug is red"


def test_the_parent_has_no_torch_and_the_worker_tells_how_it_is(farm: Farm) -> None:
    worker = farm.worker()
    assert worker is not None
    assert (worker.state, worker.resident, worker.serves) == ("ready", ["demo"], ["demo", "sd-turbo", "broken"])
    assert worker.facts["versions"]["torch"]
    maps = Path(f"/proc/{farm.processes['w1'].pid}/maps").read_text()
    assert "libtorch" not in maps
    assert "libtorch" in Path(f"/proc/{worker.pid}/maps").read_text()


def test_models_are_unloaded_and_warmed_by_command(farm: Farm) -> None:
    (told,) = send_command(farm.store, "unload", "demo", worker="w1", by="test")
    row = farm.worker()
    assert row is not None
    assert row.id == told
    farm.wait_until(lambda: not farm.worker().resident, 30, "the model is gone")  # type: ignore[union-attr]
    send_command(farm.store, "warm", "demo", by="test")
    farm.wait_until(lambda: farm.worker().resident == ["demo"], 30, "the model is back")  # type: ignore[union-attr]
    row = farm.worker()
    assert row is not None
    memory = row.load["memory"]
    assert memory["loads"] == 2
    assert memory["models"]["demo"]["tier"] == "resident"
    assert memory["models"]["demo"]["load_s"] > 0
    with farm.store.read() as session:
        facts = session.get_one(Model, "demo").facts
    assert (facts["tier"], facts["weights"]) == ("resident", "full")
    job = farm.submit("a red mug")
    assert farm.wait_for_jobs([job])[job] == "succeeded"
    audit = farm.images(job)[0].audit
    assert audit["model"]["tier"] == "resident"
    assert audit["model"]["fidelity"].startswith("none")
    assert audit["host_ms"] > 0


def test_an_idle_worker_costs_next_to_nothing(farm: Farm) -> None:
    members = [psutil.Process(farm.processes["w1"].pid), psutil.Process(farm.child_pid())]
    time.sleep(1.0)  # the last slice lingers

    def used() -> float:
        return sum(sum(member.cpu_times()[:2]) for member in members)

    before, began = used(), time.monotonic()
    time.sleep(4.0)
    share = (used() - before) / (time.monotonic() - began)
    assert share < 0.02, f"{share:.1%} of a core"


def test_a_model_that_is_missing_or_corrupt_fails_its_jobs_at_once_and_the_others_go_on(farm: Farm) -> None:
    missing, corrupt, good = farm.submit("a mug", model="sd-turbo"), farm.submit("a mug", model="broken"), farm.submit()
    farm.wait_for_jobs([missing, corrupt, good], timeout=20)
    assert farm.job(good).state == "succeeded"
    for job, state, words in ((missing, "missing", "imagefarm models pull sd-turbo"), (corrupt, "invalid", "safetensors")):
        row = farm.job(job)
        assert (row.state, row.error_code, row.attempt) == ("failed", "model_invalid", 1)
        assert words in (row.error_detail or "")
        with farm.store.read() as session:
            assert session.get_one(Model, row.model).state == state
    assert farm.log("w1", 100_000).count("model.unavailable") == 2, "one line each when the worker started"


def test_a_cancelled_job_stops_within_a_step_and_its_neighbour_goes_on(farm: Farm) -> None:
    doomed = farm.submit(**LONG | {"count": 8})
    neighbour = farm.submit(**LONG | {"count": 4})
    wait_for_step(farm, doomed, 3)
    wait_for_step(farm, neighbour, 1)
    assert cancel_job(farm.store, doomed, "tenant_default")
    cancelled_at = time.monotonic()
    farm.wait_until(lambda: f'"job": "{doomed}"' in farm.log("w1") and "job.dropped" in farm.log("w1"), 5)
    assert time.monotonic() - cancelled_at < 2, "by the hint, not by the next renewal"
    assert farm.wait_for_jobs([neighbour]) == {neighbour: "succeeded"}
    assert farm.job(doomed).state == "cancelled"
    assert farm.images(doomed) == []
    assert_files_are_rows(farm)


def test_a_child_killed_in_the_middle_loses_and_doubles_nothing(farm: Farm) -> None:
    long = farm.submit(**LONG | {"count": 8})
    ids = [long, *farm.submit_many([{"prompt": f"a green bottle {n}", "seed": n} for n in range(3)])]
    wait_for_step(farm, long, 5)
    running = [job for job in ids if farm.job(job).state == "running"]
    killed = farm.kill_child()
    killed_at = farm.store.now()
    assert set(farm.wait_for_jobs(ids, timeout=120).values()) == {"succeeded"}
    assert farm.child_pid() != killed
    with farm.store.read() as session:
        attempts = session.scalars(select(Attempt).where(Attempt.job_id.in_(running), Attempt.outcome == "crashed")).all()
    assert {attempt.job_id for attempt in attempts} >= {long}
    assert all((attempt.ended_at or 0) - killed_at < 2 for attempt in attempts), "its parent saw it at once"
    assert [len(farm.images(job)) for job in ids] == [8, 1, 1, 1]
    collect_orphan_files(farm.store, farm.outputs, older_than_s=0)  # killed between a rename and its commit
    assert_files_are_rows(farm)


def test_an_idle_worker_finds_work_without_a_ticket(farm: Farm) -> None:
    time.sleep(1.0)  # the last slice lingers
    job = farm.submit(notify=False)
    farm.wait_for_jobs([job], timeout=15)


def test_a_worker_that_was_overtaken_while_it_stood_still_commits_nothing(farm: Farm) -> None:
    job = farm.submit(**LONG)
    wait_for_step(farm, job, 2)
    pid = farm.child_pid()
    # stopped, it renews nothing; another owner takes the job meanwhile, as the sweep would let it
    os.kill(pid, signal.SIGSTOP)
    with farm.store.write() as session:
        session.execute(update(Job).where(Job.id == job).values(owner="wrk_another", attempt=Job.attempt + 1))
    os.kill(pid, signal.SIGCONT)
    farm.wait_until(lambda: farm.worker_state() == WorkerState.READY, 60)
    assert farm.images(job) == [], "the attempt that was overtaken commits nothing"
    assert farm.job(job).owner == "wrk_another"
    assert_files_are_rows(farm)
    with farm.store.write() as session:
        session.execute(update(Job).where(Job.id == job).values(lease_until=0.0))


def test_a_child_that_stands_still_is_ended_by_its_parent(farm: Farm) -> None:
    """As one does whose native code keeps the interpreter's lock; there is no sweep here that could notice a lease."""
    job = farm.submit(**LONG)
    wait_for_step(farm, job, 2)
    pid = farm.child_pid()
    os.kill(pid, signal.SIGSTOP)
    farm.wait_until(lambda: not psutil.pid_exists(pid), 60, "the child is gone")
    farm.wait_until(lambda: farm.job(job).attempt > 1 or farm.job(job).state == "queued", 10, "its job is back")
    with farm.store.read() as session:
        reason = session.scalars(select(Attempt.reason).where(Attempt.job_id == job, Attempt.attempt == 1)).one()
    assert (reason or "").startswith("hung: its liveness counter stopped for 2")
    assert farm.wait_for_jobs([job], timeout=180) == {job: "succeeded"}
    assert_files_are_rows(farm)


def test_draining_by_the_operator_and_back(farm: Farm) -> None:
    def leaves_tickets() -> bool:
        farm.issue("demo")
        time.sleep(0.5)
        return waiting(farm.redis, farm.settings.redis_prefix, "demo") > 0

    set_desired_state(farm.store, "w1", WorkerState.DRAINING, by="test", reason="a look inside")
    job = farm.submit()
    farm.wait_until(lambda: farm.worker_state() == WorkerState.DRAINING, 15)
    assert farm.job(job).state == "queued"
    farm.wait_until(leaves_tickets, 15, "the lane's tickets are left to others")
    set_desired_state(farm.store, "w1", WorkerState.READY, by="test")
    farm.wait_for_jobs([job], timeout=20)


def test_sigterm_drains_and_leaves_nothing_behind(farm: Farm) -> None:
    """The last one here: it ends the worker."""
    running = farm.submit(steps=30, count=8)
    rest = farm.submit_many([{"prompt": f"a mug {n}", "steps": 50, "count": 16} for n in range(3)])
    wait_for_step(farm, running, 2)
    processes = [psutil.Process(farm.child_pid()), psutil.Process(farm.processes["w1"].pid)]
    assert farm.terminate("w1", timeout=90) == 0
    assert not any(process.is_running() for process in processes)
    assert farm.worker_state() == WorkerState.OFFLINE
    assert farm.job(running).state in {"succeeded", "queued"}
    assert {farm.job(job).state for job in rest} <= {"queued", "succeeded"}
    assert all(farm.job(job).crashes == 0 for job in (running, *rest)), "released jobs are not counted as crashes"
    assert_files_are_rows(farm)


@pytest.mark.parametrize(
    ("variables", "words", "code"),
    [
        ({"IMAGEFARM_WORKER_MODELS": '["nope"]'}, "no model 'nope'; known: demo,", 3),
        ({"IMAGEFARM_REDIS_URL": ""}, "redis_url is not set", 3),
        ({}, "run `imagefarm migrate`", 7),
    ],
)
def test_what_the_operator_must_mend_is_one_line_and_an_exit_code(
    tmp_path: Path, variables: dict[str, str], words: str, code: int
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("IMAGEFARM_")}
    environment |= {"IMAGEFARM_DATA_DIR": str(tmp_path), "IMAGEFARM_REDIS_URL": f"unix://{tmp_path}/none"} | variables
    ended = subprocess.run(
        [*CELERY, "worker.service", "worker", "-c", "1"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == code
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("imagefarm worker:")]
    assert words in line
    assert "Traceback" not in ended.stderr
