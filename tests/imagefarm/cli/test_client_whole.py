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
        ("GET", f"{batch}/{name}"): lambda farm, name=name: farm.save_batch_file(ID, name, file) for name in files
    }  # type: ignore[misc]
    return saved | {
        ("POST", "/api/v1/jobs"): lambda farm: farm.submit("a mug"),
        ("GET", "/api/v1/jobs"): lambda farm: next(farm.list()),
        ("GET", job): lambda farm: farm.get(ID),
        ("GET", f"{job}/preview"): lambda farm: farm.preview(ID),
        ("GET", f"{job}/archive.zip"): lambda farm: farm.save_archive(ID, file),
        ("GET", f"{job}/attempts"): lambda farm: farm.attempts(ID),
        ("POST", f"{job}/cancel"): lambda farm: farm.cancel(ID),
        ("POST", f"{job}/retry"): lambda farm: farm.retry(ID),
        ("POST", f"{job}/replay"): lambda farm: farm.replay(ID),
        ("GET", f"{job}/replay"): lambda farm: farm.replayed(ID),
        ("POST", "/api/v1/jobs/cancel"): lambda farm: farm.cancel_all(),
        ("POST", "/api/v1/jobs/retry"): lambda farm: farm.retry_all(),
        ("GET", "/api/v1/images"): lambda farm: next(farm.images()),
        ("GET", "/api/v1/images/{image_id}"): lambda farm: farm.image(ID),
        ("GET", "/api/v1/images/{image_id}/file"): lambda farm: farm.save(picture(f"http://farm/api/v1/images/{ID}/file"), file),
        ("POST", "/api/v1/images/lookup"): lambda farm: farm.lookup(file),
        ("POST", "/api/v1/assets"): lambda farm: farm.upload(file),
        ("GET", "/api/v1/assets"): lambda farm: next(farm.assets()),
        ("GET", "/api/v1/assets/{asset_id}"): lambda farm: farm.asset(ID),
        ("GET", "/api/v1/assets/{asset_id}/file"): lambda farm: farm.save_asset(ID, file),
        ("POST", "/api/v1/batches"): lambda farm: farm.batch(file),
        ("GET", "/api/v1/batches"): lambda farm: next(farm.batches()),
        ("GET", batch): lambda farm: farm.get_batch(ID),
        ("GET", f"{batch}/images"): lambda farm: next(farm.batch_images(ID)),
        ("POST", f"{batch}/pause"): lambda farm: farm.pause_batch(ID),
        ("POST", f"{batch}/resume"): lambda farm: farm.resume_batch(ID),
        ("POST", f"{batch}/cancel"): lambda farm: farm.cancel_batch(ID),
        ("POST", f"{batch}/retry-failed"): lambda farm: farm.retry_failed(ID),
        ("POST", f"{batch}/approve"): lambda farm: farm.approve_batch(ID),
        ("POST", f"{batch}/picks"): lambda farm: farm.pick(ID, {"img": "approve"}),
        ("POST", f"{batch}/finals"): lambda farm: farm.finals(ID, 512, 512),
        ("POST", f"{batch}/deliver"): lambda farm: farm.deliver(ID, "bucket", "prefix"),
        ("POST", "/api/v1/webhooks"): lambda farm: farm.create_webhook("http://x", ["job.failed"]),
        ("GET", "/api/v1/webhooks"): lambda farm: farm.webhooks(),
        ("DELETE", hook): lambda farm: farm.remove_webhook(ID),
        ("GET", f"{hook}/deliveries"): lambda farm: next(farm.deliveries(ID)),
        ("POST", f"{hook}/deliveries/{{delivery_id}}/replay"): lambda farm: farm.replay_delivery(ID, ID),
        ("GET", "/api/v1/models"): lambda farm: farm.models(),
        ("GET", "/api/v1/models/{name}"): lambda farm: farm.model(ID),
        ("POST", "/api/v1/models/{name}/warm"): lambda farm: farm.warm(ID),
        ("POST", "/api/v1/models/{name}/unload"): lambda farm: farm.unload(ID),
        ("POST", "/api/v1/prompts/enhance"): lambda farm: farm.enhance("a mug"),
        ("GET", "/api/v1/prompts/kinds"): lambda farm: farm.kinds(),
        ("GET", "/api/v1/queue"): lambda farm: farm.queue(),
        ("GET", "/api/v1/statistics"): lambda farm: farm.statistics(),
        ("GET", "/api/v1/limits"): lambda farm: farm.limits(),
        ("GET", "/api/v1/settings"): lambda farm: farm.settings(),
        ("GET", "/api/v1/tenants"): lambda farm: farm.tenants(),
        ("PATCH", "/api/v1/tenants/{tenant}"): lambda farm: farm.limit_tenant(ID, {"queued": 5}),
        ("GET", "/api/v1/workers"): lambda farm: farm.workers(),
        ("POST", "/api/v1/workers/{worker}/drain"): lambda farm: farm.drain(ID),
        ("POST", "/api/v1/workers/{worker}/resume"): lambda farm: farm.resume(ID),
        ("POST", "/api/v1/workers/{worker}/quarantine"): lambda farm: farm.quarantine(ID),
        ("GET", "/api/v1/events"): lambda farm: next(farm.audit()),
        ("GET", "/api/v1/audit/verify"): lambda farm: farm.verify_audit(),
        ("GET", "/api/v1/keys"): lambda farm: farm.keys(),
        ("POST", "/api/v1/keys"): lambda farm: farm.create_key("shop"),
        ("POST", "/api/v1/keys/{key}/rotate"): lambda farm: farm.rotate_key(ID),
        ("DELETE", "/api/v1/keys/{key}"): lambda farm: farm.revoke_key(ID),
        ("GET", "/api/v1/users"): lambda farm: farm.users(),
        ("POST", "/api/v1/users"): lambda farm: farm.create_user("ada", "correct horse battery"),
        ("POST", "/api/v1/users/{user}/password"): lambda farm: farm.set_password(ID, "correct horse battery"),
        ("POST", "/api/v1/users/{user}/disable"): lambda farm: farm.disable_user(ID),
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
    sent = client.upload_zip(tmp_path / "all.zip")
    assert (sent.stored, [each.name for each in sent.items], len(sent.errors)) == (2, ["red.png", "blue.png"], 1)
    assert client.upload(tmp_path / "red.png") == sent.items[0].id
    assert [asset.name for asset in client.assets(name="blue.png")] == ["blue.png"]
    assert client.asset(sent.items[1].id).width == 64
    with Image.open(client.save_asset(sent.items[1].id, tmp_path / "back.png")) as back:
        assert back.getpixel((0, 0)) == (0, 0, 255)
    with pytest.raises(NotFoundError):
        client.asset("asset_00000000000000000000000000")


def test_keys_webhooks_and_figures_are_typed(client: Client) -> None:
    made = client.create_key("shop", limits={"queued": 5})
    new = client.rotate_key(made.prefix, grace_s=0)
    assert made.key is not None
    assert made.key not in repr(made)
    assert (new.limits, new.name, new.key != made.key) == ({"queued": 5}, "shop", True)
    assert client.revoke_key(new.id).revoked_at is not None
    keys = client.keys()
    assert [key.key for key in keys] == [None, None]
    hook = client.create_webhook("https://93.184.216.34/hook", ["job.cancelled"])
    assert hook.secret is not None
    assert [(each.id, each.secret) for each in client.webhooks()] == [(hook.id, None)]
    client.cancel(client.submit("never mind"))
    assert all(message.kind == "job.cancelled" for message in client.deliveries(hook.id))
    client.remove_webhook(hook.id)
    assert client.webhooks() == []
    assert client.verify_audit().whole
    assert next(client.audit(subject=hook.id)).kind == "webhook.removed"
    assert client.statistics("day").points
    assert client.tenants()[0].name == "default"
    assert client.limit_tenant("default", {"queued": 7, "steps": 9}).limits == {"queued": 7, "steps": 9}
    assert (client.limit_tenant("default", {"queued": None}).limits, client.tenants()[0].steps) == ({"steps": 9}, 9)
    client.limit_tenant("default", {"steps": None})
    assert client.limits().tenant["queued"]["used"] == 0
    assert client.model("demo").name == "demo"
    assert client.enhance("a red mug").enhanced.startswith("a red mug")
    assert client.kinds()[0].steps > 0


def test_a_bar_is_shown_on_a_terminal_alone(
    api: FarmApi, client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = client.submit("watched")
    api.render(api.claim(job.id))
    client.wait(job, progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    client.wait(job, progress=True)
    err = capsys.readouterr().err
    assert "succeeded" in err
    assert "left" in err
