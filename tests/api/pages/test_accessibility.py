"""Every page under axe-core, light and dark: no serious or critical finding; and none scrolls sideways on a phone."""

from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT

from tests.api.pages.conftest import Site
from tests.api.pages.every_page import addresses, seed

pytestmark = pytest.mark.browser
GRAVE = {"serious", "critical"}
RUN = """axe.run(document, {resultTypes: ["violations"]}).then(found => found.violations.map(one => [
  one.impact, one.id, one.help,
  ...one.nodes.slice(0, 3).map(node => node.html.slice(0, 160) + " " + (node.any[0]?.message ?? ""))]))"""


def test_no_page_has_a_serious_finding(site: Site, visit: Any) -> None:
    found: list[str] = []
    window = visit()
    for path in addresses(site, seed(site)):
        window.page.emulate_media(color_scheme="light", reduced_motion="reduce")  # no colour half-way to another
        window.page.set_viewport_size({"width": 1280, "height": 900})
        response = window.page.goto(site.url + path)
        assert response.status == 200, path
        window.page.evaluate(AXE_SCRIPT)
        window.page.evaluate("document.querySelectorAll('section').forEach((one, n) => n > 20 && n % 9 && one.remove())")  # alike
        for scheme in ("light", "dark"):
            window.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            for impact, *told in window.page.evaluate(RUN):
                if impact in GRAVE:
                    found.append(f"{path} {scheme} {impact}: " + "\n    ".join(told))
        window.page.set_viewport_size({"width": 390, "height": 900})
        if window.overflow() > 0:
            found.append(f"{path} is {window.overflow()} pixels wider than a phone")
    assert not found, "\n" + "\n".join(found)
    window.check_clean(site.url)
