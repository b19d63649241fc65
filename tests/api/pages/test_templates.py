"""Templates: no inline script or style, every word in both languages, nothing marked safe."""

import re
from pathlib import Path

import pytest

from api.pages.assets import FOLDER
from api.pages.chinese import WORDS

TEMPLATES = sorted((FOLDER.parent / "templates" / "pages").glob("*.html"))
SOURCES = [
    *TEMPLATES,
    *sorted((FOLDER.parent / "pages").glob("*.py")),
    FOLDER.parent.parent / "scheduler" / "metrics" / "farm_status.py",
]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_has_nothing_inline(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>", text)
    assert not re.search(r"<style|\sstyle=|\son\w+=|hx-on|javascript:", text, re.IGNORECASE)
    assert not re.search(r"\|\s*safe\b|autoescape|https?://", text)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_word_is_in_chinese_too(path: Path) -> None:
    text = path.read_text("utf-8")
    asked = set(re.findall(r"\b(?:_|t|translate)\(\s*\"((?:[^\"\\]|\\.)*)\"\s*[,)]", text))
    for one, many in re.findall(r"\bn_\([^,]+, \"([^\"]*)\", \"([^\"]*)\"", text):
        asked |= {one, many}
    if path.name == "farm_status.py":
        for word in re.findall(r"FarmStatus\((.*?)\)$", text, re.MULTILINE):
            asked |= {part for part in re.findall(r"\"([^\"]*)\"", word) if part not in {"good", "busy", "warn", "bad"}}
    if path.name == "__init__.py":
        asked |= set(re.findall(r"\(\"/[a-z]*\", \"(\w+)\"\)", text))
    assert {word for word in asked if word not in WORDS} == set()


def test_a_translation_fills_in_what_its_english_fills_in() -> None:
    for english, chinese in WORDS.items():
        named = set(re.findall(r"{(\w+)}", chinese))
        assert named <= set(re.findall(r"{(\w+)}", english)), english
