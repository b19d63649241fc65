"""Every page on PostgreSQL too: its SQL is the same, its strictness is not."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from scheduler.queue import finish
from scheduler.queue.retry import Failure, FailureClass
from tests.api.conftest import api_settings, make_api
from tests.api.pages.conftest import Site


@pytest.fixture
def on_postgresql(postgresql_uri: str, redis_url: str, tmp_path: Path) -> Iterator[Site]:
    name = f"pages_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgresql_uri, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    head, _, tail = postgresql_uri.partition("?")
    url = head.rsplit("/", 1)[0] + f"/{name}" + (f"?{tail}" if tail else "")
    site = Site(make_api(api_settings(tmp_path / "data", url, redis_url)).app)
    yield site
    site.app_context.close()


def test_every_page_renders_with_rows(on_postgresql: Site) -> None:
    site = on_postgresql
    done = site.rendered("a red mug", count=2)
    failed = site.submit("a failure")["id"]
    finish.fail(site.app_context.store, site.claim(failed), Failure(FailureClass.INPUT, "bad", "bad"), site.app_context.settings)
    table = {"template": "{{ product }}", "table": "sku,product\nA,a mug\nB,a vase", "act": "launch"}
    launched = site.http.post("/batches", data=table, headers={"Origin": "http://localhost"})
    pages = (
        "/",
        "/studio",
        "/jobs",
        "/jobs?text=red&state=succeeded&since=1h",
        "/batches",
        "/lookup",
        "/admin?verify=1&period=day",
    )
    for path in (*pages, f"/jobs/{done['id']}", f"/jobs/{failed}", launched.headers["Location"]):
        response = site.page(path)
        assert response.status_code == 200, response.text
    assert "a red mug" in site.page("/").text
