"""The Python client on a farm that asks for keys."""

from __future__ import annotations

import httpx
import pytest

from imagefarm import Client
from imagefarm.auth import Scope
from imagefarm.client import AuthError
from tests.api.farm_api import FarmApi


def test_keys_are_sent_and_refused(keyed: FarmApi) -> None:
    transport = httpx.WSGITransport(app=keyed.app)
    with Client(transport=transport) as nobody, pytest.raises(AuthError):
        nobody.jobs.submit("a mug")
    key = keyed.key("default", Scope.READ)["Authorization"].removeprefix("Bearer ")
    with Client(key=key, transport=transport) as reader:
        assert list(reader.jobs.list()) == []
        with pytest.raises(AuthError, match="submit"):
            reader.jobs.submit("a mug")
