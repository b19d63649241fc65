"""Bearer tokens of an identity provider (JWT): verification, and the caller that a token names.

The farm verifies with the key that the operator configured: a secret, a public key, or a JWKS file. The type of the key decides
which signature algorithms are accepted; the token's header only selects among these. A public key is therefore never used as a
secret, and the algorithm `none` is never accepted. Issuer, audience and expiry must be present and valid. A key file is read
again when it changes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from imagefarm.auth import ALL_SCOPES, Caller, Scope, get_or_create_tenant
from imagefarm.errors import ConfigurationError, Unauthorized
from imagefarm.settings import Settings
from imagefarm.store import Store

MIN_SECRET_BYTES = 32
MAX_TOKEN_CHARS = 8192
LEEWAY_S = 30
MAX_TIME = 2**53
"""The latest expiry that is distinguished from never."""
HMAC = ("HS256", "HS384", "HS512")
RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVES = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
TENANT = re.compile(r"[!-~\u00a1-\uffff]([ -~\u00a1-\uffff]{0,62}[!-~\u00a1-\uffff])?")
SCOPE_PREFIX = "imagefarm:"
"""Optional prefix of the scopes in a token, for tokens that serve several applications."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key, and the algorithms that its type allows."""

    kid: str | None
    key: Any
    algorithms: tuple[str, ...]


class TokenReader:
    """Verifies tokens. `check` raises ConfigurationError if the settings do not fit together."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.store = store
        self._keys: tuple[VerifyingKey, ...] = ()
        self._read: tuple[Path, int] | None = None
        self._tenants: dict[str, str] = {}
        self._lock = Lock()

    @property
    def file(self) -> Path | None:
        """The source of the keys; None if tokens are not accepted."""
        settings = self.settings
        return settings.jwt_secret_file or settings.jwt_public_key_file or settings.jwt_jwks_file

    def caller(self, token: str) -> Caller:
        """The caller that the token names. Raises Unauthorized with the reason, for the issuer of the token."""
        claims = self._claims(token)
        tenant = claims.get(self.settings.jwt_tenant_claim)
        if not isinstance(tenant, str) or not TENANT.fullmatch(tenant):
            raise Unauthorized(f"the token's claim {self.settings.jwt_tenant_claim!r} names no tenant")
        subject = "".join(letter for letter in str(claims["sub"]) if letter.isprintable())[:64]
        scopes = _scopes(claims.get(self.settings.jwt_scope_claim))
        if not self.settings.jwt_farm_scope:
            scopes -= {Scope.FARM}
        expires_at = float(min(int(claims["exp"]), MAX_TIME))
        return Caller(self._tenant(tenant), scopes, subject=subject or "nobody", expires_at=expires_at)

    def check(self) -> None:
        """Read the keys. Raises ConfigurationError if that fails, or if tokens would be accepted from any issuer or audience."""
        settings = self.settings
        given = [settings.jwt_secret_file, settings.jwt_public_key_file, settings.jwt_jwks_file]
        if sum(file is not None for file in given) > 1:
            raise ConfigurationError("set one of jwt_secret_file, jwt_public_key_file and jwt_jwks_file, not several")
        if self.file is not None:
            if not settings.jwt_issuer or not settings.jwt_audience:
                raise ConfigurationError("tokens need jwt_issuer and jwt_audience: without, those made for others would be taken")
            self.keys()

    def keys(self) -> tuple[VerifyingKey, ...]:
        """The current keys, read again when their file has changed. Raises ConfigurationError."""
        file = self.file
        if file is None:
            return ()
        with self._lock:
            try:
                stamp = (file, file.stat().st_mtime_ns)
                if self._read != stamp:
                    self._keys, self._read = self._load(file), stamp
            except (OSError, ValueError, jwt.PyJWTError) as error:
                if not self._keys:
                    raise ConfigurationError(f"{file}: {str(error)[:200]}") from None
            return self._keys  # keep the old keys while the file is being written, or nobody could sign in

    def _load(self, file: Path) -> tuple[VerifyingKey, ...]:
        data = file.read_bytes()
        if file == self.settings.jwt_secret_file:
            secret = data.strip()
            if len(secret) < MIN_SECRET_BYTES:
                raise ValueError(f"a secret needs {MIN_SECRET_BYTES} bytes or more")
            return (VerifyingKey(None, secret, HMAC),)
        if file == self.settings.jwt_public_key_file:
            key = load_pem_public_key(data)
            return (VerifyingKey(None, key, _algorithms(key)),)
        found = []
        for entry in json.loads(data)["keys"]:
            if entry.get("use", "sig") != "sig":
                continue
            key = jwt.PyJWK.from_dict(entry).key
            algorithms = HMAC if entry.get("kty") == "oct" else _algorithms(key)
            if entry.get("alg") is not None:
                algorithms = tuple(one for one in algorithms if one == entry["alg"])
            found.append(VerifyingKey(entry.get("kid"), key, algorithms))
        if not found:
            raise ValueError("has no key for signatures")
        return tuple(found)

    def _claims(self, token: str) -> Mapping[str, Any]:
        if len(token) > MAX_TOKEN_CHARS:
            raise Unauthorized(f"the token is longer than {MAX_TOKEN_CHARS} characters")
        try:
            header = jwt.get_unverified_header(token)
            kid, algorithm = header.get("kid"), header.get("alg")
            fitting = [key for key in self.keys() if algorithm in key.algorithms and (kid is None or key.kid in {None, kid})]
            for place, key in enumerate(fitting):
                try:
                    return self._decode(token, key, str(algorithm))
                except jwt.InvalidSignatureError:
                    if place == len(fitting) - 1:
                        raise
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the token has expired; get a new one") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise Unauthorized(f"the token is refused: {str(error)[:100] or 'it is malformed'}") from None
        raise Unauthorized("the token is signed with a key or an algorithm that this farm does not take")

    def _decode(self, token: str, key: VerifyingKey, algorithm: str) -> Mapping[str, Any]:
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key.key,
            algorithms=[algorithm],
            audience=self.settings.jwt_audience,
            issuer=self.settings.jwt_issuer,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        return claims

    def _tenant(self, name: str) -> str:
        if name not in self._tenants:
            with self.store.write() as session:
                self._tenants[name] = get_or_create_tenant(session, name)
        return self._tenants[name]


def looks_like_token(text: str) -> bool:
    """True for three parts separated by dots, a form that API keys never have."""
    return text.count(".") == 2


def _algorithms(key: Any) -> tuple[str, ...]:
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < 2048:
            raise ValueError("an RSA key needs 2048 bits or more")
        return RSA
    if isinstance(key, ec.EllipticCurvePublicKey):
        return CURVES.get(key.curve.name, ())
    if isinstance(key, ed25519.Ed25519PublicKey):
        return ("EdDSA",)
    raise ValueError("not a public key for signatures (do not put a private key into this file)")


def _scopes(claim: Any) -> frozenset[Scope]:
    names = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    given = {name.removeprefix(SCOPE_PREFIX) for name in names if isinstance(name, str)}
    return frozenset(scope for scope in ALL_SCOPES if scope in given)
