"""A short cache of rendered pages: five hundred open pages cost three renderings a second.

Only a page that fetches itself gets a cached rendering, at most `RENDER_CACHE_S` old. Its script waits that long after a change,
so
the rendering includes the change. A page that is opened, or that follows a form, is always rendered. Renderings are shared
between
viewers of one tenant with the same scopes, language and address; nothing else of the caller is in them.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from functools import wraps
from typing import Any

from flask import Flask, Response, current_app, g, request

from api.http.auth import SESSION_COOKIE
from api.pages.i18n import language
from imagefarm.auth import Caller

RENDER_CACHE_S = 0.3
MAX_ENTRIES = 200
"""Cached renderings, of some ten kilobytes each; the least recently used are dropped first."""
KEY = "imagefarm.pages.render_cache"
Page = tuple[int, list[tuple[str, str]], bytes]


class RenderCache:
    """The newest renderings by cache key. Each is made once, while other callers wait for it."""

    def __init__(self) -> None:
        self._cached: OrderedDict[Hashable, tuple[float, Future[Page]]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Page]) -> Page:
        """The rendering begun less than `RENDER_CACHE_S` ago, or a new one. An error of `make` is raised to all waiting
        callers."""
        with self._lock:
            began, page = self._cached.get(key, (float("-inf"), Future()))
            if mine := time.monotonic() - began >= RENDER_CACHE_S:
                page = Future()
                self._cached[key] = (time.monotonic(), page)
                while len(self._cached) > MAX_ENTRIES:
                    self._cached.popitem(last=False)
            self._cached.move_to_end(key)
        if mine:
            try:
                page.set_result(make())
            except BaseException as error:  # noqa: BLE001 - any caller that waits must hear of it, whatever it is
                page.set_exception(error)
        return page.result()


def init_app(app: Flask) -> None:
    """Attach the cache to the application, and give the pages' script its waiting time."""
    app.extensions[KEY] = RenderCache()
    app.jinja_env.globals["render_cache_ms"] = round(1000 * RENDER_CACHE_S)


def cached_per_tenant(view: Callable[..., Response]) -> Callable[..., Response]:
    """Cache this page per tenant. It takes a `caller`, and shows nothing of the caller but tenant and scopes."""

    @wraps(view)
    def answer(**arguments: Any) -> Response:
        if "HX-Request" not in request.headers:
            return view(**arguments)

        def make() -> Page:
            g.whole = True  # whatever this browser has cached, other viewers need the whole page
            response = view(**arguments)
            return response.status_code, list(response.headers), response.get_data()

        caller: Caller = arguments["caller"]
        key = (
            caller.tenant_id,
            caller.scopes,
            SESSION_COOKIE in request.cookies,
            language(),
            request.host_url,
            request.full_path,
        )
        status, headers, body = current_app.extensions[KEY].get(key, make)
        return Response(body, status, headers).make_conditional(request)  # type: ignore[return-value]

    answer.is_cached_per_tenant = True  # type: ignore[attr-defined]
    return answer


def is_cached_per_tenant(view: Callable[..., Any]) -> bool:
    """True for a page that depends on nothing of its caller but tenant and scopes."""
    return bool(getattr(view, "is_cached_per_tenant", False))
