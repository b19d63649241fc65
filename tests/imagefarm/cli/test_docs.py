"""The pages say what is so: made pages are current, links lead somewhere, every Celery setting has its reason."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from imagefarm.settings import PROJECT_ROOT
from tools.pages import PAGES

WRITTEN = [PROJECT_ROOT / "README.md", PROJECT_ROOT / "CHANGELOG.md", *sorted((PROJECT_ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("name", PAGES)
def test_a_made_page_is_current(name: str) -> None:
    assert (PROJECT_ROOT / "docs" / name).read_text("utf-8") == PAGES[name](), "run `make docs`"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(PROJECT_ROOT)))
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    missing = [
        target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target and not (page.parent / target).exists()
    ]
    missing += [
        path
        for path in re.findall(r"`((?:imagefarm|api|scheduler|worker|migrations|deploy|docs|examples|tools)/[\w./-]*)`", text)
        if not (PROJECT_ROOT / path).exists()
    ]
    assert missing == []


def test_every_celery_setting_has_its_reason() -> None:
    tree = ast.parse((PROJECT_ROOT / "scheduler" / "celery_app.py").read_text("utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "update":
            names |= {keyword.arg for keyword in node.keywords if keyword.arg}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "transport":
            assert isinstance(node.value, ast.Dict)
            names |= {key.value for key in node.value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    table = (PROJECT_ROOT / "docs" / "architecture.md").read_text("utf-8").partition("## Celery settings")[2]
    assert len(names) > 20
    assert {name for name in names - {"broker_transport_options"} if name not in table} == set()


@pytest.mark.process
def test_make_help_lists_every_target() -> None:
    makefile = (PROJECT_ROOT / "Makefile").read_text()
    listed = subprocess.run(["make", "help"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True).stdout
    for target in re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split():  # type: ignore[index]
        assert f"make {target} " in listed
