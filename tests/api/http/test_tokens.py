"""Bearer tokens of an identity provider: the right ones, and every trick with the others."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imagefarm.auth import Scope
from imagefarm.errors import ConfigurationError
from tests.api.conftest import api_settings, make_api
from tests.api.farm_api import FarmApi, problem

SECRET = "0123456789abcdef0123456789abcdef-secret"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
PEM = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
WHO = {"jwt_issuer": "https://id.example", "jwt_audience": "imagefarm"}
Make = Callable[..., FarmApi]


@pytest.fixture
def farm(tmp_path: Path, redis_url: str) -> Iterator[Make]:
    """Makes a farm that takes tokens; on SQLite, since no token can tell."""
    made: list[FarmApi] = []

    def make(kind: str, content: bytes | str) -> FarmApi:
        file = tmp_path / "key"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        database = f"sqlite:///{tmp_path / f'farm{len(made)}.db'}"
        settings = api_settings(tmp_path / "data", database, redis_url, auth="keys", **{kind: file}, **WHO)
        made.append(make_api(settings))
        return made[-1]

    yield make
    for api in made:
        api.app_context.close()


def claims(**more: Any) -> dict[str, Any]:
    base = {"iss": "https://id.example", "aud": "imagefarm", "sub": "ada", "exp": time.time() + 300}
    base |= {"tenant": "token shop", "scope": "submit read"} | more
    return {name: value for name, value in base.items() if value is not None}


def asked(api: FarmApi, token: str, path: str = "/api/v1/jobs") -> Any:
    return api.http.get(path, headers={"Authorization": f"Bearer {token}"})


def jwk(key: Any, kid: str, algorithm: type[jwt.algorithms.Algorithm]) -> dict[str, Any]:
    return json.loads(algorithm.to_jwk(key.public_key())) | {"kid": kid, "use": "sig"}  # type: ignore[attr-defined]


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_claims_are_tenant_and_scopes(farm: Make) -> None:
    api = farm("jwt_secret_file", SECRET)
    headers = {"Authorization": f"Bearer {jwt.encode(claims(), SECRET, 'HS256')}"}
    made = api.http.post("/api/v1/jobs", json={"prompt": "a cup"}, headers=headers)
    assert made.status_code == 202
    same_tenant = api.key("token shop", Scope.READ)
    assert [job["id"] for job in api.get("/api/v1/jobs", headers=same_tenant)["items"]] == [made.get_json()["id"]]
    assert api.get("/api/v1/jobs", headers=api.key("another"))["items"] == []
    problem(api.http.get("/api/v1/keys", headers=headers), 403)
    reader = jwt.encode(claims(scope="read openid"), SECRET, "HS256")
    problem(api.http.post("/api/v1/jobs", json={"prompt": "x"}, headers={"Authorization": f"Bearer {reader}"}), 403)
    assert asked(api, jwt.encode(claims(scope=["imagefarm:admin"]), SECRET, "HS256"), "/api/v1/keys").status_code == 200
    problem(asked(api, jwt.encode(claims(scope=None), SECRET, "HS256")), 403)
    assert api.get("/api/v1/jobs", headers=same_tenant), "API keys hold beside tokens"
    cancelled = api.http.post(f"/api/v1/jobs/{made.get_json()['id']}/cancel", headers=headers)
    assert cancelled.get_json()["state"] == "cancelled"


def test_public_keys_and_their_sets(farm: Make, tmp_path: Path) -> None:
    api = farm("jwt_public_key_file", PEM)
    for algorithm in ("RS256", "RS512", "PS256"):
        assert asked(api, jwt.encode(claims(), RSA_KEY, algorithm)).status_code == 200
    problem(asked(api, jwt.encode(claims(), rsa.generate_private_key(65537, 2048), "RS256")), 401)
    keys = {"keys": [jwk(RSA_KEY, "one", jwt.algorithms.RSAAlgorithm), jwk(EC_KEY, "two", jwt.algorithms.ECAlgorithm)]}
    api = farm("jwt_jwks_file", json.dumps(keys))
    assert asked(api, jwt.encode(claims(), RSA_KEY, "RS256", headers={"kid": "one"})).status_code == 200
    assert asked(api, jwt.encode(claims(), EC_KEY, "ES256", headers={"kid": "two"})).status_code == 200
    problem(asked(api, jwt.encode(claims(), EC_KEY, "ES256", headers={"kid": "three"})), 401)
    (tmp_path / "key").write_text(json.dumps({"keys": keys["keys"][1:]}))
    problem(asked(api, jwt.encode(claims(), RSA_KEY, "RS256", headers={"kid": "one"})), 401)
    (tmp_path / "key").write_text("{half")
    assert asked(api, jwt.encode(claims(), EC_KEY, "ES256", headers={"kid": "two"})).status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"exp": 1_000_000_000}, {"exp": None}, {"exp": "soon"}, {"nbf": 9_999_999_999},
        {"aud": "another"}, {"aud": None}, {"iss": "https://evil.example"}, {"iss": None}, {"sub": None}, {"sub": 7},
        {"tenant": None}, {"tenant": ""}, {"tenant": 7}, {"tenant": ["a"]}, {"tenant": "x" * 65}, {"tenant": " a"},
        {"tenant": "a\0b"}, {"tenant": "a\nb"},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_claims(farm: Make, wrong: dict[str, Any]) -> None:
    api = farm("jwt_secret_file", SECRET)
    problem(asked(api, jwt.encode(claims(**wrong), SECRET, "HS256") if wrong != {"sub": 7} else _raw(claims(sub=7))), 401)


def _raw(body: dict[str, Any]) -> str:
    return jwt.api_jws.encode(json.dumps(body).encode(), SECRET, "HS256")


def test_tricks_with_the_header(farm: Make) -> None:
    """Above all: the public key as an HMAC secret, and no signature at all."""
    api = farm("jwt_public_key_file", PEM)
    right = jwt.encode(claims(), RSA_KEY, "RS256")
    head, body, tail = right.split(".")
    forged = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims())}"
    hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    confused = base64.urlsafe_b64encode(hmac.sign(forged.encode(), PEM)).decode().rstrip("=")
    for token in (
        f"{forged}.{confused}",
        *(f"{part({'alg': none})}.{body}." for none in ("none", "None", "NONE", "")),
        f"{part({'alg': 'none'})}.{body}.{tail}",
        f"{part({'alg': None})}.{body}.{tail}",
        f"{part({})}.{body}.{tail}",
        f"{part({'alg': ['RS256']})}.{body}.{tail}",
        f"{part({'alg': 'RS256', 'kid': '../../etc/passwd'})}.{body}.{tail}",
        f"{part({'alg': 'RS256', 'jwk': {'kty': 'oct', 'k': 'AA'}})}.{body}.{tail}",
        f"{part({'alg': 'RS256', 'jku': 'https://evil.example'})}.{body}.{tail}",
        f"{part({'alg': 'RS256', 'crit': ['x'], 'x': 1})}.{body}.{tail}",
        f"{head}.{part(claims(tenant='victim'))}.{tail}",
        f"{head}.{body}.", f"{head}..{tail}", "..", "a.b.c", f"{head}.{body}.{tail}x", "é.é.é", "." * 3,
        f"{head}.{'A' * 9000}.{tail}",
        f"{part(['alg'])}.{body}.{tail}", f"{part('x')}.{part(1)}.{tail}",
    ):  # fmt: skip
        problem(asked(api, token), 401)
    assert asked(api, right).status_code == 200


def test_no_token_is_a_key_of_a_farm_without_any(keyed: FarmApi) -> None:
    problem(asked(keyed, jwt.encode(claims(), SECRET, "HS256")), 401)


@pytest.mark.parametrize(
    ("more", "word"),
    [({"jwt_issuer": ""}, "jwt_issuer"), ({"jwt_audience": ""}, "jwt_audience"), ({"content": "short"}, "32 bytes"),
     ({"kind": "jwt_public_key_file"}, "key"), ({"kind": "jwt_jwks_file"}, "key"), ({"missing": True}, "No such file")],
)  # fmt: skip
def test_settings_that_would_take_anybody_are_refused(tmp_path: Path, redis_url: str, more: dict[str, Any], word: str) -> None:
    more = dict(more)
    file = tmp_path / "key"
    content, missing, kind = more.pop("content", SECRET), more.pop("missing", False), more.pop("kind", "jwt_secret_file")
    if not missing:
        file.write_text(content)
    settings = api_settings(tmp_path / "data", f"sqlite:///{tmp_path / 'farm.db'}", redis_url, **{kind: file} | WHO | more)
    with pytest.raises(ConfigurationError, match=word):
        make_api(settings)
