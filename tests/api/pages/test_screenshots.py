"""The photographs of the pages: one of each, wide and narrow, light and dark, and not too heavy to clone."""

from imagefarm.settings import PROJECT_ROOT
from tools.screenshots import SCHEMES, WIDTHS, Seed, pages

FOLDER = PROJECT_ROOT / "docs" / "screenshots"


def test_every_page_is_there_in_every_form() -> None:
    wanted = {f"{name}-{width}-{scheme}.webp" for name in pages(Seed("", "")) for width in WIDTHS for scheme in SCHEMES}
    assert {path.name for path in FOLDER.iterdir()} == wanted
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3_500_000
