"""Bad requests to the routes around jobs: choosing, delivering, telling, people, keys, commands, pictures sent in.

Each request is refused with a problem that names the error and its remedy, and no table gains or loses a row.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from typing import Any

import pytest
from PIL import Image as Picture
from sqlalchemy import func, select

from imagefarm.settings import BucketSettings
from imagefarm.store.models import Base, Usage
from tests.api.farm_api import FarmApi, problem

NOWHERE = {kind: f"{kind}_01JD0000000000000000000000" for kind in ("batch", "job", "img", "asset", "hook", "msg", "user", "key")}
BATCH, PASSWORD = "/api/v1/batches/{batch}", "correct horse battery"
PAUSED, JOB = "/api/v1/batches/{paused}", "/api/v1/jobs/{job}"


@dataclass
class Bad:
    """A request, its refusal, the field that the refusal names first ("": it is about no field), and a word of it."""

    path: str
    body: Any = None
    names: str = ""
    says: str = ""
    status: int = 422
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


def get(path: str, names: str = "", says: str = "", status: int = 422) -> Bad:
    return Bad(path, None, names, says, status, "GET")


def picks(*each: Any) -> dict[str, Any]:
    return {"picks": list(each)}


def user(**changes: Any) -> dict[str, Any]:
    return {"name": "ada", "password": PASSWORD} | changes


def hook(**changes: Any) -> dict[str, Any]:
    return {"url": "https://shop.example/hook", "kinds": ["batch.done"]} | changes


def finals(**changes: Any) -> dict[str, Any]:
    return {"width": 128, "height": 128} | changes


def table(**options: Any) -> dict[str, Any]:
    return {"rows": [{"prompt": "a mug"}], **options}


def channel(**changes: Any) -> dict[str, Any]:
    return {"name": "own", "width": 64, "height": 64} | changes


def zipped(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    data = io.BytesIO()
    Picture.new(mode, (width, height)).save(data, "PNG")
    return data.getvalue()


SURROGATE, NUL = b'"\\ud800"', b'"a\\u0000b"'
CHOOSING = [
    Bad(f"{BATCH}/picks", {}, "picks", "missing"),
    Bad(f"{BATCH}/picks", picks(), "picks", "fewer than 1"),
    Bad(f"{BATCH}/picks", {"picks": {}}, "picks", "list"),
    Bad(f"{BATCH}/picks", {"picks": "all"}, "picks", "list"),
    Bad(f"{BATCH}/picks", picks({}), "picks.0.image_id", "missing"),
    Bad(f"{BATCH}/picks", picks("img"), "picks.0", "object"),
    Bad(f"{BATCH}/picks", picks({"image_id": "{image}"}), "picks.0.pick", "missing"),
    Bad(f"{BATCH}/picks", picks({"image_id": "{image}", "pick": "love"}), "picks.0.pick", "approve"),
    Bad(f"{BATCH}/picks", picks({"image_id": "{image}", "pick": True}), "picks.0.pick", "approve"),
    Bad(f"{BATCH}/picks", picks({"image_id": 7, "pick": "approve"}), "picks.0.image_id", "not text"),
    Bad(f"{BATCH}/picks", picks({"image_id": "", "pick": "approve"}), "picks.0.image_id", "is empty"),
    Bad(f"{BATCH}/picks", picks({"image_id": "x" * 41, "pick": "approve"}), "picks.0.image_id", "longer"),
    Bad(f"{BATCH}/picks", picks({"image_id": "../../etc/passwd", "pick": "approve"}), "picks.0.image_id", "no picture"),
    Bad(f"{BATCH}/picks", picks({"image_id": NOWHERE["img"], "pick": "reroll"}), "picks.0.image_id", "no picture"),
    Bad(f"{BATCH}/picks", picks({"image_id": "{other image}", "pick": "approve"}), "picks.0.image_id", "no picture"),
    Bad(
        f"{BATCH}/picks",
        picks(*[{"image_id": "{image}", "pick": each} for each in ("approve", "reject")]),
        "picks.1.image_id",
        "twice",
    ),
    Bad(f"{BATCH}/picks", picks({"image_id": "{image}", "pick": "approve", "by": "me"}), "picks.0.by", "known field"),
    Bad(f"{BATCH}/picks", picks(*[{"image_id": "x", "pick": "approve"}] * 5001), "picks", "more than 5000"),
    Bad(f"{BATCH}/picks", b'{"picks": [{"image_id": ' + NUL + b', "pick": "approve"}]}', "picks.0.image_id", "NUL", 400),
    Bad(
        f"{BATCH}/picks",
        b'{"picks": [{"image_id": ' + SURROGATE + b', "pick": "approve"}]}',
        "picks.0.image_id",
        "surrogate",
        400,
    ),
    Bad(f"{BATCH}/picks", [], "body", "object"),
    Bad(f"{BATCH}/picks", b"", "body", "empty", 400),
    Bad(f"/api/v1/batches/{NOWHERE['batch']}/picks", picks({"image_id": "x", "pick": "approve"}), says="no batch", status=404),
    Bad("/api/v1/batches/../jobs/picks", picks(), says="nothing is at", status=404),
    get(f"{BATCH}/images?pick=best", "pick", "approved"),
    get(f"{BATCH}/images?verdict=fine", "verdict", "accept"),
    get(f"{BATCH}/images?limit=501", "limit", "at most 500"),
    get(f"{BATCH}/images?cursor=AAAA", "cursor", "cursor"),
    get(f"{BATCH}/images?cursor=%F0%9F%92%A5", "cursor", "cursor"),
    get(f"{BATCH}/images?cursor=%00", "cursor", "NUL"),
    get(f"/api/v1/batches/{NOWHERE['batch']}/images", says="no batch", status=404),
    get(f"/api/v1/images/{NOWHERE['img']}/file?channel=square", says="no image", status=404),
    get(f"{BATCH}/archive.zip?pick=nice", "pick", "approved"),
    get(f"{BATCH}/manifest.csv?pick=approved&pick=open", "pick", "more than once"),
    get(f"/api/v1/batches/{NOWHERE['batch']}/archive.zip", says="no batch", status=404),
    get(f"/api/v1/jobs/{NOWHERE['job']}/archive.zip", says="no job", status=404),
]
FINALS = [
    Bad(f"{BATCH}/finals", {}, "width", "missing"),
    Bad(f"{BATCH}/finals", {"width": 128}, "height", "missing"),
    Bad(f"{BATCH}/finals", finals(width=True), "width", "true or false"),
    Bad(f"{BATCH}/finals", finals(width=0), "width", "at least 16"),
    Bad(f"{BATCH}/finals", finals(width=10**30), "width", "at most 4096"),
    Bad(f"{BATCH}/finals", finals(width="128x128"), "width", "whole number"),
    Bad(f"{BATCH}/finals", finals(height=100), "height", "multiple of 16"),
    Bad(f"{BATCH}/finals", finals(height="tall"), "height", "whole number"),
    Bad(f"{BATCH}/finals", finals(width=4096, height=4096), "width", "model demo"),
    Bad(f"{BATCH}/finals", finals(steps=0), "steps", "at least 1"),
    Bad(f"{BATCH}/finals", finals(steps=200), "steps", "model demo"),
    Bad(f"{BATCH}/finals", finals(steps=1.5), "steps", "whole number"),
    Bad(f"{BATCH}/finals", finals(seed=5), "seed", "known field"),
    Bad(f"{BATCH}/finals", finals(upscale={"model": "../x"}), "upscale.model", "no upscaler"),
    Bad(f"{BATCH}/finals", finals(upscale={"scale": 5}), "upscale.scale", "at most 4"),
    Bad(f"{BATCH}/finals", finals(name=""), "name", "is empty"),
    Bad(f"{BATCH}/finals", finals(name="x" * 256), "name", "longer"),
    Bad(f"{BATCH}/finals", b'{"width": 128, "height": 128, "name": ' + NUL + b"}", "name", "NUL", 400),
    Bad(f"{BATCH}/finals", finals(channels="square"), "channels", "list"),
    Bad(f"{BATCH}/finals", finals(channels=["nope"]), "channels.0", "use one of"),
    Bad(f"{BATCH}/finals", finals(channels=[channel(name="../up")]), "channels.0.name", "must match"),
    Bad(f"{BATCH}/finals", finals(channels=["web", "web"]), "channels.1", "twice"),
    Bad(f"{BATCH}/finals", finals(channels=["web"] * 13), "channels", "more than 12"),
    Bad(f"{BATCH}/finals", finals(deliver={"bucket": "shop"}), "deliver.prefix", "missing"),
    Bad(f"{BATCH}/finals", finals(deliver={"bucket": "s3://x", "prefix": "x"}), "deliver.bucket", "form"),
    Bad(f"{BATCH}/finals", finals(deliver={"bucket": "nope", "prefix": "x"}), "deliver.bucket", "use one of"),
    Bad(f"{BATCH}/finals", finals(prompt="another"), "prompt", "known field"),
    Bad(f"{PAUSED}/finals", finals(), "", "approve pictures first"),
    Bad(f"/api/v1/batches/{NOWHERE['batch']}/finals", finals(), says="no batch", status=404),
]
TABLES = [
    Bad("/api/v1/batches", table(gate={}), "gate", "no rule"),
    Bad("/api/v1/batches", table(gate=[]), "gate", "object"),
    Bad("/api/v1/batches", table(gate={"sharpness": {}}), "gate.sharpness", "neither"),
    Bad("/api/v1/batches", table(gate={"beauty": {"at_least": 1}}), "gate.beauty", "known"),
    Bad("/api/v1/batches", table(gate={"sharpness": {"at_least": -1}}), "gate.sharpness.at_least", "at least 0|greater"),
    Bad("/api/v1/batches", table(gate={"sharpness": {"at_least": True}}), "gate.sharpness.at_least", "true or false"),
    Bad("/api/v1/batches", table(gate={"sharpness": {"at_least": 5, "at_most": 4}}), "gate.sharpness", "no picture"),
    Bad("/api/v1/batches", table(gate={"exposure": {"at_most": 1, "otherwise": "delete"}}), "gate.exposure.otherwise", "review"),
    Bad("/api/v1/batches", table(gate={"exposure": {"at_most": 1}, "rerolls": 11}), "gate.rerolls", "10"),
    Bad("/api/v1/batches", table(channels=["nope"]), "channels.0", "use one of"),
    Bad("/api/v1/batches", table(channels=["../web"]), "channels.0", "must match"),
    Bad("/api/v1/batches", table(channels=[channel(name="a/b")]), "channels.0.name", "must match"),
    Bad("/api/v1/batches", table(channels=[channel(), channel()]), "channels.1", "twice"),
    Bad("/api/v1/batches", table(channels=[channel(background="url(x)")]), "channels.0.background", "#[0-9a-fA-F]"),
    Bad("/api/v1/batches", table(channels=[channel(margin=0.5)]), "channels.0.margin", "at most 0.4"),
    Bad("/api/v1/batches", table(channels=[channel(width=100_000)]), "channels.0.width", "at most 4096"),
    Bad("/api/v1/batches", table(channels=[channel(format="png", max_bytes=9000)]), "channels.0", "jpeg or webp"),
    Bad("/api/v1/batches", table(channels=[channel(max_bytes=1)]), "channels.0.max_bytes", "at least 2048"),
    Bad("/api/v1/batches", table(deliver={"bucket": "private", "prefix": "x"}), "deliver.bucket", "use one of shop"),
    Bad("/api/v1/batches", table(deliver={"bucket": "shop", "prefix": "../x"}), "deliver.prefix", "must match"),
    Bad("/api/v1/batches", table(deliver="shop/x"), "deliver", "object"),
    Bad("/api/v1/batches", table(update_of="never sent"), "", "leave it out", 404),
    Bad("/api/v1/batches", table(update_of=NOWHERE["batch"]), "", "leave it out", 404),
    Bad("/api/v1/batches", table(update_of=""), "update_of", "is empty"),
    Bad("/api/v1/batches", table(canary=-1), "canary", "at least 0"),
    Bad("/api/v1/batches", table(channels=[5]), "channels.0", "not an object"),
    Bad("/api/v1/batches", table(variants={"view": [{}]}), "variants.view.0", "not text"),
    Bad("/api/v1/batches", table(variants={"view": ["x" * 1001]}), "variants.view.0", "longer than 1000"),
    Bad("/api/v1/batches", table(defaults={"mask": "asset_1"}), "mask", "upload the picture"),
    Bad(
        "/api/v1/batches",
        table(defaults={"subject": {"image": NOWHERE["asset"], "mask": "everything"}}),
        "subject",
        "upload the picture",
    ),
]
DELIVERING = [
    Bad(f"{BATCH}/deliver", {}, "bucket", "missing"),
    Bad(f"{BATCH}/deliver", {"bucket": "shop"}, "prefix", "missing"),
    Bad(f"{BATCH}/deliver", {"bucket": "shop", "prefix": "/a"}, "prefix", "form"),
    Bad(f"{BATCH}/deliver", {"bucket": "shop", "prefix": "../x"}, "prefix", "form"),
    Bad(f"{BATCH}/deliver", {"bucket": "shop", "prefix": "a/../../b"}, "prefix", "plain folder"),
    Bad(f"{BATCH}/deliver", {"bucket": "shop", "prefix": "a//b"}, "prefix", "plain folder"),
    Bad(f"{BATCH}/deliver", {"bucket": "shop", "prefix": "a\\b"}, "prefix", "form"),
    Bad(f"{BATCH}/deliver", {"bucket": "shop", "prefix": "é"}, "prefix", "form"),
    Bad(f"{BATCH}/deliver", {"bucket": "shop", "prefix": "x" * 201}, "prefix", "form"),
    Bad(f"{BATCH}/deliver", {"bucket": "SHOP", "prefix": "x"}, "bucket", "form"),
    Bad(f"{BATCH}/deliver", {"bucket": "http://169.254.169.254/", "prefix": "x"}, "bucket", "form"),
    Bad(f"{BATCH}/deliver", {"bucket": "nope", "prefix": "x"}, "bucket", "use one of shop"),
    Bad(f"{BATCH}/deliver", {"bucket": "private", "prefix": "x"}, "bucket", "use one of shop"),
    Bad(f"{BATCH}/deliver", {"bucket": "shop", "prefix": "x", "key_file": "/etc/passwd"}, "key_file", "known field"),
    Bad("/api/v1/batches/{cancelled}/deliver", {"bucket": "shop", "prefix": "x"}, says="cancelled", status=409),
    Bad(f"/api/v1/batches/{NOWHERE['batch']}/deliver", {"bucket": "shop", "prefix": "x"}, says="no batch", status=404),
    Bad(f"{BATCH}/approve", says="canary", status=409),
    Bad("/api/v1/batches/{cancelled}/resume", says="possible when", status=409),
    Bad("/api/v1/batches/{cancelled}/pause", says="possible when", status=409),
    Bad(f"/api/v1/batches/{NOWHERE['batch']}/retry-failed", says="no batch", status=404),
    Bad(f"/api/v1/batches/{NOWHERE['batch']}/pause", says="no batch", status=404),
    Bad(f"/api/v1/batches/{NOWHERE['batch']}/approve", says="no batch", status=404),
    Bad("/api/v1/batches/%00/cancel", says="nothing is at", status=404),
    Bad(f"{JOB}/retry", says="succeeded", status=409),
    Bad(f"{JOB}/cancel", says="succeeded", status=409),
    Bad("/api/v1/jobs/{waiting}/replay", says="not succeeded", status=409),
    get(f"{JOB}/replay", says="not a replay", status=404),
    get(f"/api/v1/jobs/{NOWHERE['job']}/replay", says="no job", status=404),
    Bad(f"/api/v1/jobs/{NOWHERE['job']}/replay", says="no job", status=404),
    get(f"{JOB}/preview?index=-1", "index", "at least 0"),
    get(f"{JOB}/preview?index=64", "index", "less than 64|63"),
    get(f"{JOB}/preview", says="no preview", status=404),
]
MANY = [
    Bad(f"/api/v1/jobs/{act}", body, name, says, status)
    for act in ("cancel", "retry")
    for body, name, says, status in (
        ({"expected": -1}, "expected", "at least 0", 422),
        ({"expected": True}, "expected", "true or false", 422),
        ({"expected": "all"}, "expected", "whole number", 422),
        ({"expected": 1.5}, "expected", "whole number", 422),
        ({"expected": 10**12}, "expected", "at most", 422),
        ({"state": "queued"}, "state", "list", 422),
        ({"state": ["waiting"]}, "state.0", "queued", 422),
        ({"label": ["sku"]}, "label.0", "must match", 422),
        ({"label": ["a:b"] * 9}, "label", "more than 8", 422),
        ({"created_after": "yesterday"}, "created_after", "2026-11-21T08:30:00Z", 422),
        ({"text": ""}, "text", "is empty", 422),
        ({"model": "x" * 65}, "model", "longer", 422),
        ({"ids": [NOWHERE["job"]]}, "ids", "known field", 422),
        ({"tenant": "another"}, "tenant", "known field", 422),
        ({"limit": 5}, "limit", "known field", 422),
        (b'{"text": ' + NUL + b"}", "text", "NUL", 400),
        (b"null", "body", "object", 422),
        ([], "body", "object", 422),
    )
] + [Bad("/api/v1/jobs/cancel", {"expected": 0}, says="match now", status=409)]
TELLING = [
    Bad("/api/v1/webhooks", {}, "url", "missing"),
    Bad("/api/v1/webhooks", hook(url="ftp://shop.example/x"), "url", "http or https"),
    Bad("/api/v1/webhooks", hook(url="https://"), "url", "http or https"),
    Bad("/api/v1/webhooks", hook(url="https://user:secret@shop.example/"), "url", "user name"),
    Bad("/api/v1/webhooks", hook(url="http://127.0.0.1:6379/"), "url", "not public"),
    Bad("/api/v1/webhooks", hook(url="http://2130706433/"), "url", "not public"),
    Bad("/api/v1/webhooks", hook(url="http://0x7f.1/"), "url", "not public"),
    Bad("/api/v1/webhooks", hook(url="http://[::1]/"), "url", "not public"),
    Bad("/api/v1/webhooks", hook(url="http://[::ffff:127.0.0.1]/"), "url", "not public"),
    Bad("/api/v1/webhooks", hook(url="http://169.254.169.254/latest/meta-data"), "url", "not public"),
    Bad("/api/v1/webhooks", hook(url="http://10.0.0.1/"), "url", "not public"),
    Bad("/api/v1/webhooks", hook(url="http://localhost/"), "url", "not public"),
    Bad("/api/v1/webhooks", hook(url="http://shop.example:99999/"), "url", "Port"),
    Bad("/api/v1/webhooks", hook(url="https://shop.example/\r\nHost: evil"), "url", "http or https"),
    Bad("/api/v1/webhooks", hook(url="https://shop.example/" + "x" * 5000), "url", "longer"),
    Bad("/api/v1/webhooks", hook(url=["https://shop.example/"]), "url", "not text"),
    Bad("/api/v1/webhooks", hook(kinds=[]), "kinds", "fewer than 1"),
    Bad("/api/v1/webhooks", hook(kinds=["batch.exploded"]), "kinds.0", "batch.done"),
    Bad("/api/v1/webhooks", hook(kinds="batch.done"), "kinds", "list"),
    Bad("/api/v1/webhooks", hook(kinds=["batch.done"] * 11), "kinds", "more than 10"),
    Bad("/api/v1/webhooks", hook(secret="mine"), "secret", "known field"),
    Bad("/api/v1/webhooks", hook(subject="x" * 41), "subject", "longer"),
    Bad("/api/v1/webhooks", b'{"url": "https://shop.example/", "subject": ' + NUL + b"}", "subject", "NUL", 400),
    Bad("/api/v1/webhooks", hook(subject=NOWHERE["job"]), says="no job", status=404),
    Bad("/api/v1/webhooks", hook(subject=NOWHERE["batch"]), says="no batch", status=404),
    Bad("/api/v1/webhooks", hook(subject="{image}"), says="no job", status=404),
    Bad(f"/api/v1/webhooks/{NOWHERE['hook']}", says="no webhook", status=404, method="DELETE"),
    get("/api/v1/webhooks/{hook}/deliveries?state=lost", "state", "dead"),
    get("/api/v1/webhooks/{hook}/deliveries?cursor=AAAA", "cursor", "cursor"),
    get(f"/api/v1/webhooks/{NOWHERE['hook']}/deliveries", says="no webhook", status=404),
    Bad(f"/api/v1/webhooks/{{hook}}/deliveries/{NOWHERE['msg']}/replay", says="no delivery", status=404),
]
PEOPLE = [
    Bad("/api/v1/users", {}, "name", "missing"),
    Bad("/api/v1/users", user(name=""), "name", "form"),
    Bad("/api/v1/users", user(name="a b"), "name", "form"),
    Bad("/api/v1/users", user(name="../ada"), "name", "form"),
    Bad("/api/v1/users", user(name="-a"), "name", "form"),
    Bad("/api/v1/users", user(name="ä"), "name", "form"),
    Bad("/api/v1/users", user(name="a\n"), "name", "form"),
    Bad("/api/v1/users", user(name="x" * 65), "name", "form"),
    Bad("/api/v1/users", user(name=["ada"]), "name", "not text"),
    Bad("/api/v1/users", user(password="123456789"), "password", "10 characters"),
    Bad("/api/v1/users", user(password="x" * 201), "password", "longer than 200"),
    Bad("/api/v1/users", user(password=1234567890), "password", "not text"),
    Bad("/api/v1/users", {"name": "ada"}, "password", "missing"),
    Bad("/api/v1/users", b'{"name": "ada", "password": "0123456789\\u0000"}', "password", "NUL", 400),
    Bad("/api/v1/users", user(role="root"), "role", "viewer"),
    Bad("/api/v1/users", user(role=None), "role", "viewer"),
    Bad("/api/v1/users", user(tenant=""), "tenant", "is empty"),
    Bad("/api/v1/users", user(tenant=" a"), "tenant", "white space"),
    Bad("/api/v1/users", user(password_hash="$argon2id$"), "password_hash", "known field"),
    Bad("/api/v1/users", user(name="TAKEN"), says="already", status=409),
    Bad("/api/v1/users", user(scopes=["admin"]), "scopes", "known field"),
    Bad("/api/v1/users/nobody/disable", says="no user", status=404),
    Bad("/api/v1/users/nobody/password", {"password": PASSWORD}, says="no user", status=404),
    Bad("/api/v1/users/taken/password", {"password": "short"}, "password", "10 characters"),
    Bad("/api/v1/users/taken/password", {}, "password", "missing"),
    Bad("/api/v1/users/taken/password", {"password": PASSWORD, "role": "admin"}, "role", "known field"),
    Bad("/api/v1/users/%00/disable", says="invalid characters", status=404),
    Bad("/api/v1/users/' OR 1=1 --/disable", says="no user", status=404),
    Bad("/api/v1/users/taken", says="nothing is at", status=404, method="DELETE"),
    get("/api/v1/users?role=admin", "role", "known parameter"),
]
TENANTS = [
    Bad("/api/v1/tenants/default", {}, "limits", "missing", method="PATCH"),
    Bad("/api/v1/tenants/default", {"limits": None}, "limits", "object", method="PATCH"),
    Bad("/api/v1/tenants/default", {"limits": {"queued": -1}}, "limits.queued", "at least 0", method="PATCH"),
    Bad("/api/v1/tenants/default", {"limits": {"queued": 2**53}}, "limits.queued", "at most", method="PATCH"),
    Bad("/api/v1/tenants/default", {"limits": {"steps": 1.5}}, "limits.steps", "whole number", method="PATCH"),
    Bad("/api/v1/tenants/default", {"limits": {"steps": True}}, "limits.steps", "true or false", method="PATCH"),
    Bad("/api/v1/tenants/default", {"limits": ["queued"]}, "limits", "object", method="PATCH"),
    Bad("/api/v1/tenants/default", {"limits": {"money": None}}, "limits.money", "known field", method="PATCH"),
    Bad("/api/v1/tenants/default", {"limits": {}, "weight": 9}, "weight", "known field", method="PATCH"),
    Bad("/api/v1/tenants/nobody", {"limits": {}}, says="no tenant", status=404, method="PATCH"),
    Bad("/api/v1/tenants/%00", {"limits": {}}, says="invalid characters", status=404, method="PATCH"),
    Bad("/api/v1/tenants/default", says="use", status=405, method="DELETE"),
]
KEYS = [
    Bad("/api/v1/keys", {"name": "a", "limits": {"queued": -1}}, "limits.queued", "at least 0"),
    Bad("/api/v1/keys", {"name": "a", "limits": {"queued": 1.5}}, "limits.queued", "whole number"),
    Bad("/api/v1/keys", {"name": "a", "limits": {"queued": True}}, "limits.queued", "true or false"),
    Bad("/api/v1/keys", {"name": "a", "limits": {"pixels": 2**60}}, "limits.pixels", "at most"),
    Bad("/api/v1/keys", {"name": "a", "limits": {"money": 5}}, "limits.money", "known field"),
    Bad("/api/v1/keys", {"name": "a", "limits": [5]}, "limits", "object"),
    Bad("/api/v1/keys/nope/rotate", {}, says="no key", status=404),
    Bad("/api/v1/keys/{key}/rotate", {"grace_s": -1}, "grace_s", "at least 0"),
    Bad("/api/v1/keys/{key}/rotate", {"grace_s": 10**9}, "grace_s", "at most"),
    Bad("/api/v1/keys/{key}/rotate", {"grace_s": True}, "grace_s", "true or false"),
    Bad("/api/v1/keys/{key}/rotate", {"grace_s": "a day"}, "grace_s", "not a number"),
    Bad("/api/v1/keys/{key}/rotate", b'{"grace_s": NaN}', "body", "NaN", 400),
    Bad("/api/v1/keys/{key}/rotate", {"scopes": ["admin"]}, "scopes", "known field"),
    Bad("/api/v1/keys/{revoked}/rotate", {}, says="not in force", status=409),
    Bad("/api/v1/keys/%00", says="invalid characters", status=404, method="DELETE"),
    Bad("/api/v1/keys", {"name": "a"}, headers={"Authorization": "Bearer a.b.c"}, says="unknown or revoked", status=401),
    Bad("/api/v1/keys", {"name": "a"}, headers={"Origin": "https://evil.example"}, says="origin", status=403),
]  # fmt: skip
COMMANDS = [
    *(
        bad
        for do in ("warm", "unload")
        for bad in (
            Bad(f"/api/v1/models/nope/{do}", None, "model", "use one of"),
            Bad(f"/api/v1/models/..%2fdemo/{do}", None, "", "nothing is at", 404),
            Bad(f"/api/v1/models/demo/{do}", {"worker": 3}, "worker", "not text"),
            Bad(f"/api/v1/models/demo/{do}", {"worker": "nobody"}, "", "nobody", 404),
            Bad(f"/api/v1/models/demo/{do}", {"worker": "x" * 300}, "worker", "longer"),
            Bad(f"/api/v1/models/demo/{do}", {"workers": ["a"]}, "workers", "did you mean worker?"),
            Bad(f"/api/v1/models/demo/{do}", b"{", "body", "line 1", 400),
        )
    ),
    *(
        bad
        for do in ("drain", "resume", "quarantine")
        for bad in (
            Bad(f"/api/v1/workers/nobody/{do}", None, "", "nobody", 404),
            Bad(f"/api/v1/workers/worker_1/{do}", {"reason": 3}, "reason", "not text"),
            Bad(f"/api/v1/workers/worker_1/{do}", {"reason": "x" * 5000}, "reason", "longer"),
            Bad(f"/api/v1/workers/worker_1/{do}", {"why": "x"}, "why", "known field"),
            Bad(f"/api/v1/workers/worker_1/{do}", b'{"reason": ' + NUL + b"}", "reason", "NUL", 400),
        )
    ),
    get("/api/v1/limits?tenant=another", "tenant", "known parameter"),
    get("/api/v1/tenants?name=x", "name", "known parameter"),
    get("/api/v1/statistics?period=century", "period", "hour"),
    get("/api/v1/statistics?hours=0", "hours", "known are period"),
    Bad("/api/v1/models/%00/unload", says="invalid characters", status=404),
    Bad("/api/v1/prompts/enhance", {"prompt": ""}, "prompt", "is empty"),
    Bad("/api/v1/prompts/enhance", {"prompt": "a", "variant": 100}, "variant", "at most 99"),
    Bad("/api/v1/prompts/enhance", {"prompt": "a", "variant": -1}, "variant", "at least 0"),
    Bad("/api/v1/prompts/enhance", {"prompt": "a", "variant": False}, "variant", "true or false"),
    Bad("/api/v1/prompts/enhance", {"prompt": "a", "kind": "nothing-such"}, "kind", "use one of"),
    get("/api/v1/audit/verify?fast=1", "fast", "known parameter"),
]
PICTURES = {"Content-Type": "image/png"}
ZIPPED = {"Content-Type": "application/zip"}
SENT_IN = [
    Bad("/api/v1/assets", b"", "picture", "not a PNG", headers=PICTURES),
    Bad("/api/v1/assets", b"GIF89a", "picture", "not a PNG", headers=PICTURES),
    Bad("/api/v1/assets", png(8, 8)[:45], "picture", "cannot be decoded", headers=PICTURES),
    Bad("/api/v1/assets", png(12_000, 12_000, "1"), "picture", "pixels, more than", headers=PICTURES),
    Bad("/api/v1/assets?name=", png(8, 8), "name", "is empty", headers=PICTURES),
    Bad("/api/v1/assets?name=" + "x" * 256, png(8, 8), "name", "longer", headers=PICTURES),
    Bad("/api/v1/assets?name=a%00b", png(8, 8), "name", "NUL", headers=PICTURES),
    Bad("/api/v1/assets?path=/etc", png(8, 8), "path", "did you mean|known are|known", headers=PICTURES),
    Bad("/api/v1/assets", b"<svg/>", "", "send", 415, headers={"Content-Type": "image/svg+xml"}),
    Bad("/api/v1/assets", says="image/png", status=415),
    Bad("/api/v1/assets", png(8, 8), "", "gzip", 415, headers=PICTURES | {"Content-Encoding": "gzip"}),
    Bad("/api/v1/assets", b"PK\x03\x04 not a zip", "file", "as a ZIP", headers=ZIPPED),
    Bad("/api/v1/assets", zipped(), "file", "no picture", headers=ZIPPED),
    Bad("/api/v1/assets", zipped(a=b"text"), "a", "not a PNG", headers=ZIPPED),
    Bad(
        "/api/v1/assets", zipped(**{"../../etc/passwd.png": png(8, 8)}), "../../etc/passwd.png", "out of the ZIP", headers=ZIPPED
    ),
    Bad("/api/v1/assets", zipped(**{"/etc/passwd.png": png(8, 8)}), "/etc/passwd.png", "out of the ZIP", headers=ZIPPED),
    Bad("/api/v1/assets", zipped(**{"bomb.png": png(12_000, 12_000, "1")}), "bomb.png", "pixels, more than", headers=ZIPPED),
    Bad("/api/v1/assets", zipped(**{"zeros.png": bytes(80_000_000)}), "zeros.png", "more than", headers=ZIPPED),
    Bad("/api/v1/assets", b"no form", "file", "exactly one", headers={"Content-Type": "multipart/form-data; boundary=x"}),
    get("/api/v1/assets?limit=0", "limit", "at least 1"),
    get("/api/v1/assets?cursor=AAAA", "cursor", "cursor"),
    get(f"/api/v1/assets/{NOWHERE['asset']}", says="no asset", status=404),
    get(f"/api/v1/assets/{NOWHERE['asset']}/file", says="no asset", status=404),
    get("/api/v1/assets/asset_1/file", says="nothing is at", status=404),
    Bad("/api/v1/jobs", {"prompt": "a", "subject": {}}, "subject.image", "missing"),
    Bad("/api/v1/jobs", {"prompt": "a", "subject": {"image": "../x"}}, "subject.image", "form"),
    Bad("/api/v1/jobs", {"prompt": "a", "subject": {"image": NOWHERE["img"]}}, "subject.image", "form"),
    Bad("/api/v1/jobs", {"prompt": "a", "subject": {"image": NOWHERE["asset"]}}, "subject.image", "no such asset"),
    Bad("/api/v1/jobs", {"prompt": "a", "subject": {"image": "{asset}", "mask": "face"}}, "subject.mask", "alpha"),
    Bad("/api/v1/jobs", {"prompt": "a", "subject": {"image": "{asset}", "scale": 9}}, "subject.scale", "known field"),
    Bad("/api/v1/jobs", {"prompt": "a", "subject": {"image": "{asset}", "mask": "{small}"}}, "subject.mask", "8x8 pixels"),
    Bad("/api/v1/jobs", {"prompt": "a", "init_image": "{asset}", "mask": "{small}"}, "mask", "8x8 pixels"),
    Bad("/api/v1/jobs", {"prompt": "a", "init_image": "{asset}", "mask": NOWHERE["asset"]}, "mask", "no such asset"),
    Bad(
        "/api/v1/jobs", {"prompt": "a", "init_image": "{asset}", "subject": {"image": "{asset}"}}, "init_image", "send no subject"
    ),
    Bad("/api/v1/jobs", {"prompt": "a", "init_image": "http://127.0.0.1:6379/"}, "init_image", "not public"),
    Bad("/api/v1/jobs", {"prompt": "a", "init_image": "http://2130706433/a.png"}, "init_image", "not public"),
    Bad("/api/v1/jobs", {"prompt": "a", "init_image": "http://[::1]/a.png"}, "init_image", "not public"),
    Bad("/api/v1/jobs", {"prompt": "a", "init_image": "http://[::ffff:7f00:1]/x.png"}, "init_image", "not public"),
    Bad("/api/v1/jobs", {"prompt": "a", "init_image": "file:///etc/passwd"}, "init_image", "form"),
]
AREAS = {
    "picks": CHOOSING, "finals": FINALS, "tables": TABLES, "deliver": DELIVERING, "many": MANY, "webhooks": TELLING,
    "users": PEOPLE, "tenants": TENANTS, "keys": KEYS, "commands": COMMANDS, "assets": SENT_IN,
}  # fmt: skip


@pytest.fixture(scope="module")
def things(api: FarmApi) -> dict[str, str]:
    """What the requests name: a rendered batch, another one, one that is cancelled, a key, a user, assets ..."""

    def batch(rows: int = 1) -> str:
        body = {"rows": [{"prompt": f"a mug {number}"} for number in range(rows)]}
        return api.http.post("/api/v1/batches", json=body).get_json()["id"]

    def post(path: str, **sent: Any) -> dict[str, Any]:
        response = api.http.post(path, **sent)
        assert response.status_code < 300, response.text
        return response.get_json()

    done, other = batch(), batch()
    jobs = [api.get(f"/api/v1/jobs?batch={each}")["items"][0]["id"] for each in (done, other)]
    [image], [other_image] = [api.render(api.claim(job)) for job in jobs]
    post(f"/api/v1/batches/{done}/picks", json=picks({"image_id": image, "pick": "approve"}))
    cancelled, paused = batch(), batch()
    post(f"/api/v1/batches/{cancelled}/cancel")
    post(f"/api/v1/batches/{paused}/pause")
    asset, small = (post("/api/v1/assets", data=png(size, size), content_type="image/png")["items"][0]["id"] for size in (64, 8))
    post("/api/v1/users", json=user(name="taken"))
    revoked = post("/api/v1/keys", json={"name": "old"})["id"]
    api.http.delete(f"/api/v1/keys/{revoked}")
    place = BucketSettings(url="s3://nowhere")
    api.app_context.settings.buckets = {"shop": place, "private": place.model_copy(update={"tenants": ["somebody"]})}
    return {
        "batch": done, "image": image, "other image": other_image, "cancelled": cancelled, "paused": paused, "job": jobs[0],
        "asset": asset, "small": small, "revoked": revoked, "key": post("/api/v1/keys", json={"name": "new"})["id"],
        "hook": post("/api/v1/webhooks", json=hook(url="https://93.184.216.34/"))["id"], "waiting": api.submit("waits")["id"],
    }  # fmt: skip


def rows(api: FarmApi) -> dict[str, int]:
    """How many rows each table has."""
    with api.app_context.store.read() as session:
        tables = [table for table in Base.metadata.sorted_tables if table.name != Usage.__tablename__]
        found = session.execute(select(*(select(func.count()).select_from(table).scalar_subquery() for table in tables))).one()
    return dict(zip([table.name for table in tables], found, strict=True))


def named(value: Any, things: dict[str, str]) -> Any:
    """`value` with what its {names} stand for."""
    if isinstance(value, str):
        for name, thing in things.items():
            value = value.replace(f"{{{name}}}", thing)
        return value
    if isinstance(value, dict):
        return {key: named(each, things) for key, each in value.items()}
    return [named(each, things) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("area", AREAS)
def test_it_is_refused(api: FarmApi, things: dict[str, str], area: str) -> None:
    wrong = []
    before = rows(api)
    for place, bad in enumerate(AREAS[area]):
        sent: dict[str, Any] = {"headers": bad.headers}
        if isinstance(bad.body, bytes):
            sent |= {"data": bad.body, "content_type": bad.headers.get("Content-Type", "application/json")}
        elif bad.body is not None:
            sent["json"] = named(bad.body, things)
        response = api.http.open(named(bad.path, things), method=bad.method, **sent)
        try:
            body = problem(response, bad.status)
            errors = body.get("errors", [])
            if bad.names:
                assert errors[0]["field"] == bad.names, f"names {errors[0]['field']}"
            assert bad.names == "" or errors[0]["remedy"], "says no remedy"
            assert bad.says, "the case has no word"
            assert PASSWORD not in response.text, "repeats the password"
            assert any(word in json.dumps(body, ensure_ascii=False) for word in bad.says.split("|")), f"does not say {bad.says}"
            assert rows(api) == before, "left something behind"
        except AssertionError as failure:
            wrong.append(
                f"{place} {bad.method} {bad.path} {str(bad.body)[:100]}: {str(failure).splitlines()[0]}\n  {response.text[:400]}"
            )
            before = rows(api)
        response.close()
    assert not wrong, "\n".join(wrong)
    assert len(AREAS[area]) > 10
