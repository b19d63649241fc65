"""A page of another site changes nothing here: every route of the pages that takes a form refuses it before it looks at it."""

import re

import pytest

from api.http.auth import SAFE_METHODS, SESSION_COOKIE
from tests.api.pages.conftest import Site

REFUSED: tuple[dict[str, str], ...] = (
    {"Origin": "https://example.org"},
    {"Origin": "null"},
    {"Origin": "http://localhost:81"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
    {"Cookie": f"{SESSION_COOKIE}=x"},
)


def forms(site: Site) -> list[str]:
    """The address of every route of the pages that changes something, with `x` for each of its parameters."""
    return sorted(
        re.sub(r"<[^>]+>", "x", rule.rule)
        for rule in site.app.url_map.iter_rules()
        if not rule.rule.startswith(("/api/", "/v1/", "/sdapi/")) and (rule.methods or set()) - SAFE_METHODS
    )


def test_there_are_forms(site: Site) -> None:
    assert {"/studio", "/sign-in", "/sign-out", "/jobs/x/cancel", "/admin/keys", "/admin/workers/x/x"} <= set(forms(site))


@pytest.mark.parametrize("headers", REFUSED, ids=str)
def test_every_form_of_another_site_is_refused(site: Site, headers: dict[str, str]) -> None:
    http = site.app.test_client(use_cookies=False)
    for path in forms(site):
        response = http.post(path, headers=headers)
        assert (path, response.status_code) == (path, 403)
