"""Collect the texts of the pages and of the code, and update the catalogues in api/translations.

`make translations` runs it after a text changed. A new text enters each catalogue without a translation: write it there. Texts
that
are no longer used are removed. The tests fail while a translation is missing.
"""

from __future__ import annotations

from pathlib import Path

from babel.messages import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).parent.parent
CATALOGUES = ROOT / "api" / "translations"
METHODS = [("**.py", "python"), ("**/templates/pages/**.html", "jinja2")]
FOLDERS = ("imagefarm", "scheduler", "api")
KEYWORDS = {
    "_": None,
    "gettext": None,
    "lazy_gettext": None,
    "N_": None,
    "Message": None,
    "ngettext": (1, 2),
    "pgettext": ((1, "c"), 2),
}
HEADER = """\
# Texts of the pages in another language. `make translations` keeps this file up to date; the translations are written by hand.
#"""


def extract() -> Catalog:
    """Every text that is marked for translation."""
    found = Catalog(fuzzy=False)
    for folder in FOLDERS:
        for _, _, text, _, context in extract_from_dir(ROOT / folder, METHODS, keywords=KEYWORDS):
            found.add(text, context=context)
    return found


def update(path: Path, template: Catalog) -> list[str]:
    """Bring one catalogue up to date. Returns the texts without a translation."""
    with path.open("rb") as file:
        catalogue = read_po(file, locale=path.parent.parent.name)
    catalogue.update(template, no_fuzzy_matching=True, update_creation_date=False)
    catalogue.obsolete.clear()
    catalogue.header_comment, catalogue.fuzzy = HEADER, False
    catalogue.project, catalogue.version, catalogue.last_translator = "imagefarm", "", ""
    catalogue.msgid_bugs_address, catalogue.language_team = "", ""
    with path.open("wb") as file:
        write_po(file, catalogue, width=0, no_location=True, sort_output=True)
    return [str(message.id) for message in catalogue if message.id and not all(_strings(message.string))]


def _strings(string: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return string if isinstance(string, tuple) else (string or "",)


def main() -> None:
    """Update every catalogue, and print the texts without a translation."""
    template = extract()
    for path in sorted(CATALOGUES.glob("*/LC_MESSAGES/messages.po")):
        for text in update(path, template):
            print(f"{path.relative_to(ROOT)}: no translation: {text}")


if __name__ == "__main__":
    main()
