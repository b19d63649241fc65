"""Bad requests about webhooks, users, tenants, keys, commands and assets."""

from __future__ import annotations

import pytest

from tests.api.farm_api import FarmApi
from tests.api.v1.bad_requests import (
    NOWHERE,
    NUL,
    PASSWORD,
    Bad,
    check_refused,
    get,
    hook,
    png,
    user,
    zipped,
)

WEBHOOKS = [
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
USERS = [
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
ASSETS = [
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
    "webhooks": WEBHOOKS,
    "users": USERS,
    "tenants": TENANTS,
    "keys": KEYS,
    "commands": COMMANDS,
    "assets": ASSETS,
}


@pytest.mark.parametrize("area", AREAS)
def test_it_is_refused(api: FarmApi, things: dict[str, str], area: str) -> None:
    check_refused(api, things, AREAS[area])
