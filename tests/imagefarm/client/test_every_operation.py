"""The client reaches every operation of the OpenAPI document that is meant for programs, and what it reaches answers."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from imagefarm import Client
from imagefarm.client import NotFoundError
from tests.api.farm_api import FarmApi

ID = "x"
"""Stands in every path for what is named."""
NOT_CALLED = {
    ("GET", "/api/v1/openapi.json"): "the document itself",
    ("GET", "/api/v1/jobs/{job_id}/events"): "server-sent events, for pages; a program has wait(on_progress=...)",
    ("GET", "/api/v1/events/stream"): "server-sent events, for pages; a program has webhooks",
}


def calls(file: Path) -> dict[tuple[str, str], Callable[[Client], object]]:
    """How each operation is called."""
    batch, job, hook = "/api/v1/batches/{batch_id}", "/api/v1/jobs/{job_id}", "/api/v1/webhooks/{webhook_id}"
    files = ("manifest.csv", "manifest.jsonl", "report.csv", "errors.csv", "archive.zip")
    saved: dict[tuple[str, str], Callable[[Client], object]] = {
        ("GET", f"{batch}/{name}"): lambda farm, name=name: farm.batches.save_file(ID, name, file) for name in files
    }  # type: ignore[misc]
    return saved | {
        ("POST", "/api/v1/jobs"): lambda farm: farm.jobs.submit("a mug"),
        ("GET", "/api/v1/jobs"): lambda farm: next(farm.jobs.list()),
        ("GET", job): lambda farm: farm.jobs.get(ID),
        ("GET", f"{job}/preview"): lambda farm: farm.jobs.preview(ID),
        ("GET", f"{job}/archive.zip"): lambda farm: farm.jobs.save_archive(ID, file),
        ("GET", f"{job}/attempts"): lambda farm: farm.jobs.attempts(ID),
        ("POST", f"{job}/cancel"): lambda farm: farm.jobs.cancel(ID),
        ("POST", f"{job}/retry"): lambda farm: farm.jobs.retry(ID),
        ("POST", f"{job}/replay"): lambda farm: farm.jobs.replay(ID),
        ("GET", f"{job}/replay"): lambda farm: farm.jobs.get_replay(ID),
        ("POST", "/api/v1/jobs/cancel"): lambda farm: farm.jobs.cancel_all(),
        ("POST", "/api/v1/jobs/retry"): lambda farm: farm.jobs.retry_all(),
        ("GET", "/api/v1/images"): lambda farm: next(farm.images.list()),
        ("GET", "/api/v1/images/{image_id}"): lambda farm: farm.images.get(ID),
        ("GET", "/api/v1/images/{image_id}/file"): lambda farm: farm.images.save(
            picture(f"http://farm/api/v1/images/{ID}/file"), file
        ),
        ("POST", "/api/v1/images/lookup"): lambda farm: farm.images.lookup(file),
        ("POST", "/api/v1/assets"): lambda farm: farm.assets.upload(file),
        ("GET", "/api/v1/assets"): lambda farm: next(farm.assets.list()),
        ("GET", "/api/v1/assets/{asset_id}"): lambda farm: farm.assets.get(ID),
        ("GET", "/api/v1/assets/{asset_id}/file"): lambda farm: farm.assets.save(ID, file),
        ("POST", "/api/v1/batches"): lambda farm: farm.batches.submit(file),
        ("GET", "/api/v1/batches"): lambda farm: next(farm.batches.list()),
        ("GET", batch): lambda farm: farm.batches.get(ID),
        ("GET", f"{batch}/images"): lambda farm: next(farm.batches.images(ID)),
        ("POST", f"{batch}/pause"): lambda farm: farm.batches.pause(ID),
        ("POST", f"{batch}/resume"): lambda farm: farm.batches.resume(ID),
        ("POST", f"{batch}/cancel"): lambda farm: farm.batches.cancel(ID),
        ("POST", f"{batch}/retry-failed"): lambda farm: farm.batches.retry_failed(ID),
        ("POST", f"{batch}/approve"): lambda farm: farm.batches.approve(ID),
        ("POST", f"{batch}/picks"): lambda farm: farm.batches.pick(ID, {"img": "approve"}),
        ("POST", f"{batch}/finals"): lambda farm: farm.batches.finals(ID, 512, 512),
        ("POST", f"{batch}/deliver"): lambda farm: farm.batches.deliver(ID, "bucket", "prefix"),
        ("POST", "/api/v1/webhooks"): lambda farm: farm.webhooks.create("http://x", ["job.failed"]),
        ("GET", "/api/v1/webhooks"): lambda farm: farm.webhooks.list(),
        ("DELETE", hook): lambda farm: farm.webhooks.remove(ID),
        ("GET", f"{hook}/deliveries"): lambda farm: next(farm.webhooks.deliveries(ID)),
        ("POST", f"{hook}/deliveries/{{delivery_id}}/replay"): lambda farm: farm.webhooks.replay(ID, ID),
        ("GET", "/api/v1/models"): lambda farm: farm.models.list(),
        ("GET", "/api/v1/models/{name}"): lambda farm: farm.models.get(ID),
        ("POST", "/api/v1/models/{name}/warm"): lambda farm: farm.models.warm(ID),
        ("POST", "/api/v1/models/{name}/unload"): lambda farm: farm.models.unload(ID),
        ("POST", "/api/v1/prompts/enhance"): lambda farm: farm.prompts.enhance("a mug"),
        ("GET", "/api/v1/prompts/kinds"): lambda farm: farm.prompts.kinds(),
        ("GET", "/api/v1/queue"): lambda farm: farm.status.queue(),
        ("GET", "/api/v1/statistics"): lambda farm: farm.status.statistics(),
        ("GET", "/api/v1/limits"): lambda farm: farm.status.limits(),
        ("GET", "/api/v1/settings"): lambda farm: farm.admin.settings(),
        ("GET", "/api/v1/tenants"): lambda farm: farm.admin.tenants.list(),
        ("PATCH", "/api/v1/tenants/{tenant}"): lambda farm: farm.admin.tenants.limit(ID, {"queued": 5}),
        ("GET", "/api/v1/workers"): lambda farm: farm.workers.list(),
        ("POST", "/api/v1/workers/{worker}/drain"): lambda farm: farm.workers.drain(ID),
        ("POST", "/api/v1/workers/{worker}/resume"): lambda farm: farm.workers.resume(ID),
        ("POST", "/api/v1/workers/{worker}/quarantine"): lambda farm: farm.workers.quarantine(ID),
        ("GET", "/api/v1/events"): lambda farm: next(farm.admin.audit.list()),
        ("GET", "/api/v1/audit/verify"): lambda farm: farm.admin.audit.verify(),
        ("GET", "/api/v1/keys"): lambda farm: farm.admin.keys.list(),
        ("POST", "/api/v1/keys"): lambda farm: farm.admin.keys.create("shop"),
        ("POST", "/api/v1/keys/{key}/rotate"): lambda farm: farm.admin.keys.rotate(ID),
        ("DELETE", "/api/v1/keys/{key}"): lambda farm: farm.admin.keys.revoke(ID),
        ("GET", "/api/v1/users"): lambda farm: farm.admin.users.list(),
        ("POST", "/api/v1/users"): lambda farm: farm.admin.users.create("ada", "correct horse battery"),
        ("POST", "/api/v1/users/{user}/password"): lambda farm: farm.admin.users.set_password(ID, "correct horse battery"),
        ("POST", "/api/v1/users/{user}/disable"): lambda farm: farm.admin.users.disable(ID),
    }


def picture(url: str):  # type: ignore[no-untyped-def]
    from imagefarm.client import Image as Picture

    return Picture(id=ID, index=0, seed=0, width=1, height=1, sha256="", pixel_sha256="", bytes=1, url=url)


class Asked(Exception):
    """Ends a call at its request."""


@pytest.fixture
def asking() -> Iterator[Client]:
    def ask(request: httpx.Request) -> httpx.Response:
        raise Asked(request.method, request.url.path)

    with Client("http://farm", transport=httpx.MockTransport(ask)) as client:
        yield client


def test_every_operation_for_programs_has_a_method(api: FarmApi, asking: Client, tmp_path: Path) -> None:
    document = api.get("/api/v1/openapi.json")
    offered = {
        (method.upper(), path) for path, methods in document["paths"].items() if path.startswith("/api/v1/") for method in methods
    }
    file = tmp_path / "file.csv"
    file.write_text("prompt\na mug\n")
    called = calls(file)
    assert offered == called.keys() | NOT_CALLED.keys()
    for (method, path), call in called.items():
        with pytest.raises(Asked) as asked:
            call(asking)
        meant = "/".join(ID if part.startswith("{") else part for part in path.split("/"))
        assert asked.value.args == (method, meant)


def test_pictures_sent_in_are_listed_and_come_back(client: Client, tmp_path: Path) -> None:
    for color in ("red", "blue"):
        Image.new("RGB", (64, 64), color).save(tmp_path / f"{color}.png")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("red.png", "blue.png"):
            archive.write(tmp_path / name, name)
        archive.writestr("bad.png", b"no picture")
    sent = client.assets.upload_zip(tmp_path / "all.zip")
    assert (sent.stored, [each.name for each in sent.items], len(sent.errors)) == (2, ["red.png", "blue.png"], 1)
    assert client.assets.upload(tmp_path / "red.png") == sent.items[0].id
    assert [asset.name for asset in client.assets.list(name="blue.png")] == ["blue.png"]
    assert client.assets.get(sent.items[1].id).width == 64
    with Image.open(client.assets.save(sent.items[1].id, tmp_path / "back.png")) as back:
        assert back.getpixel((0, 0)) == (0, 0, 255)
    with pytest.raises(NotFoundError):
        client.assets.get("asset_00000000000000000000000000")


def test_keys_webhooks_and_figures_are_typed(client: Client) -> None:
    made = client.admin.keys.create("shop", limits={"queued": 5})
    new = client.admin.keys.rotate(made.prefix, grace_s=0)
    assert made.key is not None
    assert made.key not in repr(made)
    assert (new.limits, new.name, new.key != made.key) == ({"queued": 5}, "shop", True)
    assert client.admin.keys.revoke(new.id).revoked_at is not None
    keys = client.admin.keys.list()
    assert [key.key for key in keys] == [None, None]
    hook = client.webhooks.create("https://93.184.216.34/hook", ["job.cancelled"])
    assert hook.secret is not None
    assert [(each.id, each.secret) for each in client.webhooks.list()] == [(hook.id, None)]
    client.jobs.cancel(client.jobs.submit("never mind"))
    assert all(message.kind == "job.cancelled" for message in client.webhooks.deliveries(hook.id))
    client.webhooks.remove(hook.id)
    assert client.webhooks.list() == []
    assert client.admin.audit.verify().whole
    assert next(client.admin.audit.list(subject=hook.id)).kind == "webhook.removed"
    assert client.status.statistics("day").points
    assert client.admin.tenants.list()[0].name == "default"
    assert client.admin.tenants.limit("default", {"queued": 7, "steps": 9}).limits == {"queued": 7, "steps": 9}
    assert (client.admin.tenants.limit("default", {"queued": None}).limits, client.admin.tenants.list()[0].steps) == (
        {"steps": 9},
        9,
    )
    client.admin.tenants.limit("default", {"steps": None})
    assert client.status.limits().tenant["queued"]["used"] == 0
    assert client.models.get("demo").name == "demo"
    assert client.prompts.enhance("a red mug").enhanced.startswith("a red mug")
    assert client.prompts.kinds()[0].steps > 0


def test_a_bar_is_shown_on_a_terminal_alone(
    api: FarmApi, client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = client.jobs.submit("watched")
    api.render(api.claim(job.id))
    client.jobs.wait(job, progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    client.jobs.wait(job, progress=True)
    err = capsys.readouterr().err
    assert "succeeded" in err
    assert "left" in err
