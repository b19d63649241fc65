"""Every page declares the scope that its reader needs. This test lists the pages without a scope."""

from __future__ import annotations

import pytest

from api.http.routes import routes_of
from api.pages.registry import Pages, pages_of
from imagefarm.auth import Scope
from tests.api.pages.conftest import Site
from tests.api.pages.every_page import addresses, seed

OPEN = {
    "pages_sign_in.sign_in_page": "asks for a name and a password",
    "pages_sign_in.sign_in_form": "begins a session",
    "pages_sign_in.sign_out_form": "ends a session",
}
FILES = {"static"}


def test_every_route_that_is_no_rest_route_is_a_declared_page(site: Site) -> None:
    declared = {route.endpoint for route in pages_of(site.app)} | {route.name for route in routes_of(site.app)}
    assert {rule.endpoint for rule in site.app.url_map.iter_rules()} - declared == FILES


def test_every_page_has_a_scope_or_is_open_on_purpose(site: Site) -> None:
    assert {route.endpoint for route in pages_of(site.app) if route.scope is None} == set(OPEN)


def test_admin_pages_are_for_admins_and_forms_for_those_who_may_submit(site: Site) -> None:
    for route in pages_of(site.app):
        if route.path.startswith("/admin"):
            assert route.scope is Scope.FARM, route
        elif route.method == "POST" and route.endpoint not in OPEN and route.path != "/lookup":  # it changes nothing
            assert route.scope is Scope.SUBMIT, route


def test_a_page_that_is_open_to_all_cannot_ask_for_its_caller() -> None:
    pages = Pages("pages_test")
    with pytest.raises(TypeError, match="has no caller"):

        @pages.get("/test", scope=None)
        def view(caller: object) -> str:
            return str(caller)


def test_a_reader_without_the_scope_is_refused(site: Site) -> None:
    reader = site.key("a-reader", Scope.READ)
    assert site.http.get("/jobs", headers=reader).status_code == 200
    for headers in (reader, site.key("shop", Scope.ADMIN)):
        for path in ("/admin", "/admin/users"):
            assert site.http.get(path, headers=headers).status_code == 403
    assert site.http.post("/studio", headers=reader).status_code == 403


def test_no_shared_cache_keeps_a_page(site: Site) -> None:
    values = seed(site)
    files = [f"/batches/{values['batch_id']}/cells.json", f"/jobs/{values['job_id']}/preview.webp"]
    for path in (*addresses(site, values), *files):
        if path in {"/docs", "/sign-in", "/live"}:
            continue
        directives = set(site.http.get(path, headers={"Accept": "text/html"}).headers["Cache-Control"].split(", "))
        assert "public" not in directives, path
        assert directives & {"private", "no-store"}, path
