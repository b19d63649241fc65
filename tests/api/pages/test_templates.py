"""Templates: no inline script or style, nothing marked safe, and every text that is shown is a literal in them or has a label."""

import re
from pathlib import Path

import pytest

from api.pages.assets import FOLDER

ROOT = FOLDER.parent / "templates" / "pages"
TEMPLATES = sorted(ROOT.rglob("*.html"))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_template_has_nothing_inline(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>", text)
    assert not re.search(r"<style|\sstyle=|\son\w+=|hx-on|javascript:", text, re.IGNORECASE)
    assert not re.search(r"\|\s*safe\b|autoescape|https?://", text)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_text_to_translate_is_a_literal(path: Path) -> None:
    """A variable could not be found by `make translations`; `label` and `translated` are for those."""
    assert not re.search(r"\b(_|ngettext)\((?![\"'])", path.read_text("utf-8"))
