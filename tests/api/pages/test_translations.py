"""The catalogues: every text has its translation, no translation is unused, and both fill in the same values."""

import re
from pathlib import Path

import pytest
from babel.messages import Catalog
from babel.messages.catalog import Message as Entry
from babel.messages.pofile import read_po
from flask import Flask

from api.pages import i18n, labels
from imagefarm.messages import N_, Message
from tools import translations

PATHS = sorted(translations.CATALOGUES.glob("*/LC_MESSAGES/messages.po"))
VALUE = re.compile(r"%\((\w+)\)s")


@pytest.fixture(scope="module")
def template() -> Catalog:
    return translations.extract()


@pytest.fixture
def app() -> Flask:
    made = Flask(__name__)
    i18n.init_app(made)
    labels.init_app(made)
    return made


def entries(catalogue: Catalog) -> dict[object, Entry]:
    return {(entry.context, entry.id): entry for entry in catalogue if entry.id}


def read(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale=path.parent.parent.name)


def texts(of: object) -> list[str]:
    return [str(one) for one in of] if isinstance(of, list | tuple) else [str(of or "")]


def test_every_language_but_english_has_a_catalogue() -> None:
    assert {path.parent.parent.name for path in PATHS} == set(i18n.LANGUAGES) - {"en"}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.parent.name)
def test_the_catalogue_has_the_texts_of_the_farm_and_no_others(path: Path, template: Catalog) -> None:
    wanted, there = entries(template).keys(), entries(read(path)).keys()
    assert wanted - there == set(), "run `make translations`, then translate"
    assert there - wanted == set(), "run `make translations`: these are unused"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.parent.name)
def test_every_text_is_translated_with_the_same_values(path: Path) -> None:
    for entry in entries(read(path)).values():
        english, other = texts(entry.id), texts(entry.string)
        assert all(other), f"no translation of {english[0]!r}"
        assert not entry.fuzzy, english[0]
        for text in other:
            assert set(VALUE.findall(text)) == set(VALUE.findall(english[-1])), english[0]


def test_a_text_holds_no_markup(template: Catalog) -> None:
    """Texts stand in attributes and in elements, as they are."""
    for entry in entries(template).values():
        assert not re.search(r"[<>\"]|&\w+;", "".join(texts(entry.id))), entry.id


def test_the_catalogue_is_read_without_compiled_files(app: Flask) -> None:
    assert not list(translations.CATALOGUES.rglob("*.mo"))
    with app.test_request_context("/?lang=zh"):
        assert i18n.gettext("Jobs") == "任务"
        assert i18n.ngettext("%(n)s row", "%(n)s rows", 1200) == "1,200 行"
        assert labels.label("job.claimed", "event") == "已领取"
    with app.test_request_context("/?lang=en"):
        assert i18n.ngettext("%(n)s row", "%(n)s rows", 1) == "1 row"
        assert labels.label("job.claimed", "event") == "Claimed"
        assert labels.label("job.unheard_of", "event") == "job.unheard_of"


def test_a_message_made_elsewhere_is_filled_in_again(app: Flask) -> None:
    message = Message("of %(n)s", n=Message("%(n)s steps", n=8))
    assert message == "of 8 steps"
    with app.test_request_context("/?lang=zh"):
        assert i18n.translated(Message("of %(n)s", n=5)) == "上限 5"
        assert i18n.translated(N_("Not found")) == "找不到"
        assert i18n.translated("100% made by somebody else") == "100% made by somebody else"
        assert i18n.translated("") == ""


def test_every_label_is_there_in_chinese(app: Flask) -> None:
    with app.test_request_context("/?lang=zh"):
        for group, names in labels.LABELS.items():
            for name in names:
                assert re.search(r"[\u4e00-\u9fff]|LoRA|URL", labels.label(name, group)), name
