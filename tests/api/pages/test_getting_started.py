"""Getting started: the reader's own address, in both languages, and a key only where the farm asks for one."""

import ast
import shlex

from api.pages.getting_started import KEY, steps
from tests.api.pages.conftest import Site
from tools import translations


def test_the_reader_s_address_stands_in_every_command(site: Site) -> None:
    text = site.page("/getting-started", Host="localhost:8123").text
    assert text.count("http://localhost:8123") == 5
    assert KEY not in text
    assert "快速上手" in site.page("/getting-started", "zh").text
    assert "白色背景上的红色马克杯" in site.page("/getting-started", "zh").text


def test_commands_are_whole_and_carry_the_key_where_one_is_asked_for() -> None:
    for asks_key in (False, True):
        made = {step.id: step.code for step in steps("http://farm.example:8000", "a red mug", asks_key=asks_key)}
        assert [KEY in code for code in made.values()] == [asks_key] * 4
        ast.parse(made["python"])
        assert shlex.split(made["curl"].replace("\\\n", ""))[0] == "curl"
        assert shlex.split(made["cli"])[-4:] == ["--seed", "42", "--out", "pictures"]


def test_every_step_is_in_chinese_too() -> None:
    marked = {entry.id for entry in translations.extract()}
    for step in steps("http://x", "x", asks_key=True):
        assert {step.title, step.hint} <= marked
