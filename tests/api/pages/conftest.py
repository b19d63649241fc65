"""The pages on a real store and a real Redis: through Flask's test client, and in Chromium over a threaded server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from werkzeug.serving import make_server

from imagefarm.states import WorkerState
from scheduler.queue import workers
from tests.api.conftest import api_settings, make_api, redis_url
from tests.api.farm_api import FarmApi
from tests.browser import require_chromium

__all__ = ["redis_url"]  # one redis-server serves these tests as it serves the API's
QUIET_CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Site(FarmApi):
    """A farm with its pages, served on `url` as a browser sees it."""

    keeps_cookies = True

    url: str = field(default="")

    def page(self, path: str, lang: str = "en", **headers: str) -> Any:
        """A page as a browser gets it."""
        return self.app.test_client(use_cookies=False).get(
            path, headers={"Accept": "text/html", "Accept-Language": lang} | headers
        )

    def beat(self, worker: str = "worker_1", state: WorkerState = WorkerState.READY) -> None:
        """A heartbeat of a worker that has the demo model in memory."""
        workers.heartbeat(self.app_context.store, worker, state, resident=["demo"], load={})


@pytest.fixture(scope="module")
def site(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An open farm with one worker and no jobs, on SQLite."""
    folder = tmp_path_factory.mktemp("site")
    made = make_api(api_settings(folder / "data", f"sqlite:///{folder / 'farm.db'}", redis_url))
    site = Site(made.app)
    site.beat()
    server = make_server("127.0.0.1", 0, site.app, threaded=True)
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="site", daemon=True)
    thread.start()
    yield site
    site.app_context.close()
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture(scope="session")
def chromium(starts_process: None) -> Iterator[Any]:
    """One Chromium for all browser tests."""
    executable = require_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=QUIET_CHROMIUM)
        yield browser
        browser.close()


@dataclass
class Visit:
    """One browser window and what went wrong in it."""

    page: Any
    complaints: list[str]
    hosts: set[str]

    def check_clean(self, url: str) -> None:
        """No error in the console, no violation of the policy, no request to another host."""
        assert self.complaints == []
        assert self.hosts <= {url.removeprefix("http://")}

    def overflow(self) -> int:
        """Pixels that the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


@pytest.fixture
def visit(chromium: Any) -> Iterator[Any]:
    """Open windows: `visit(width=390, scheme='dark')`; each is closed at the end."""
    contexts = []

    def open_window(*, width: int = 1280, scheme: str = "light", lang: str = "en-US", javascript: bool = True) -> Visit:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, locale=lang, java_script_enabled=javascript
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(8000)
        seen = Visit(page, [], set())
        page.on("console", lambda message: seen.complaints.append(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on("request", lambda request: seen.hosts.add(request.url.split("/")[2]) if "://" in request.url else None)
        return seen

    yield open_window
    for context in contexts:
        context.close()
