"""The registry of pages: one declaration serves routing and authorisation, as `api.http.routes` does for the REST API.

```
pages = Pages("pages_studio")

@pages.get("/studio", scope=Scope.READ)
def studio_page(app_context: AppContext, caller: Caller) -> Response:
    \"\"\"Show the form.\"\"\"
```

The names of a view's parameters select its arguments: `app_context`, `caller` and the names in its path. A page with `scope`
None is open to all; a test lists those pages.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

from flask import Blueprint, Flask

from api.http.auth import authenticate, require
from api.http.context import current_app_context
from imagefarm.auth import Scope

PROVIDED = frozenset({"app_context", "caller"})
KEY = "imagefarm.pages.routes"
View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class PageRoute:
    """One page or form: its method and path, and the scope that it needs (None: open to all)."""

    method: str
    path: str
    endpoint: str
    scope: Scope | None


class Pages:
    """The pages of one area. `name` is the prefix of their endpoints."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.blueprint = Blueprint(name, __name__)
        self.routes: list[PageRoute] = []

    def get(self, path: str, *, scope: Scope | None) -> Callable[[View], View]:
        """Declare a page."""
        return self._route("GET", path, scope)

    def post(self, path: str, *, scope: Scope | None) -> Callable[[View], View]:
        """Declare the target of a form."""
        return self._route("POST", path, scope)

    def _route(self, method: str, path: str, scope: Scope | None) -> Callable[[View], View]:
        def keep(view: View) -> View:
            self.routes.append(PageRoute(method, path, f"{self.name}.{view.__name__}", scope))
            self.blueprint.add_url_rule(path, view.__name__, _authorised(view, scope), methods=[method])
            return view

        return keep


def register(app: Flask, areas: Iterable[Pages]) -> None:
    """Add the pages of all areas to the application, and keep their list."""
    kept: list[PageRoute] = app.extensions.setdefault(KEY, [])
    for area in areas:
        app.register_blueprint(area.blueprint)
        kept += area.routes


def pages_of(app: Flask) -> list[PageRoute]:
    """Every registered page of the application."""
    return cast("list[PageRoute]", app.extensions[KEY])


def _authorised(view: Callable[..., Any], scope: Scope | None) -> Callable[..., Any]:
    wanted = PROVIDED & set(inspect.signature(view).parameters)
    if scope is None and "caller" in wanted:
        raise TypeError(f"{view.__name__}: a page that is open to all has no caller")

    @wraps(view)
    def answer(**path_values: str) -> Any:
        given: dict[str, Any] = {"app_context": current_app_context()}
        if scope is not None:
            given["caller"] = authenticate(given["app_context"])
            require(given["caller"], scope)
        return view(**path_values, **{name: given[name] for name in wanted})

    return answer
