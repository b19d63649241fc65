"""The API in this process, for a client that calls it without a network; on SQLite, since no client can tell."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from imagefarm import Client
from tests.api.conftest import api, keyed, redis_url
from tests.api.farm_api import FarmApi

__all__ = ["api", "keyed", "redis_url"]


@pytest.fixture(scope="module")
def module_database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('api') / 'farm.db'}"


@pytest.fixture
def client(api: FarmApi) -> Iterator[Client]:
    """A client of the API."""
    with Client("http://127.0.0.1:8000", transport=httpx.WSGITransport(app=api.app)) as client:
        yield client
