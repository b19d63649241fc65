"""The reader's language: how it is chosen and stored, and the texts in it.

English texts in templates and code are the keys of the catalogues in `api/translations`. The application reads the `.po` files
when it starts, so neither a fresh clone nor an installed wheel needs compiled files.
"""

from __future__ import annotations

import io
from pathlib import Path

import flask_babel
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations
from flask import Flask, Response, g, has_request_context, request

from imagefarm.messages import Message
from scheduler.queue.pending_reason import PendingReason

LANGUAGES = {"en": "English", "zh": "中文"}
CATALOGUES = Path(__file__).parent.parent / "translations"
COOKIE = "imagefarm_lang"
YEAR_S = 365 * 86400


class PoDomain(flask_babel.Domain):  # type: ignore[misc]
    """Flask-Babel's source of catalogues."""

    def __init__(self) -> None:
        super().__init__()
        self._english = NullTranslations()
        self._texts = {name: load_catalogue(name) for name in LANGUAGES if name != "en"}

    def get_translations(self) -> NullTranslations:
        """The catalogue of the reader's language; English has none."""
        return self._texts.get(language(), self._english)


def init_app(app: Flask) -> None:
    """Give templates the texts of the reader's language, and store a language chosen by `?lang=` in a cookie."""
    babel = flask_babel.Babel(configure_jinja=False)
    babel.init_app(app, locale_selector=language)
    babel.domain_instance = PoDomain()
    app.jinja_env.globals.update(_=gettext, ngettext=ngettext, reason=reason, language=language, LANGUAGES=LANGUAGES)
    app.jinja_env.filters["translated"] = translated
    app.after_request(_remember)


def load_catalogue(name: str) -> Translations:
    """Read the catalogue of a language and compile it in memory."""
    compiled = io.BytesIO()
    with (CATALOGUES / name / "LC_MESSAGES" / "messages.po").open("rb") as file:
        write_mo(compiled, read_po(file, locale=name))
    compiled.seek(0)
    return Translations(compiled)


def language() -> str:
    """The reader's language: `?lang=`, else the cookie, else the browser's preference, else English."""
    if not has_request_context():
        return "en"
    if "language" not in g:
        for chosen in (request.args.get("lang"), request.cookies.get(COOKIE)):
            if chosen in LANGUAGES:
                g.language = chosen
                break
        else:
            g.language = request.accept_languages.best_match(list(LANGUAGES), "en")
    return str(g.language)


def gettext(text: str, **values: object) -> str:
    """`text` in the reader's language, with `%(name)s` filled from `values`."""
    return str(flask_babel.gettext(text, **values))


def ngettext(one: str, many: str, number: int, **values: object) -> str:
    """`one` or `many` in the reader's language, chosen by `number`; both may show it as `%(n)s`."""
    shown = f"{number:,}"
    return str(flask_babel.ngettext(one, many, number, n=shown, **values))


def translated(text: str) -> str:
    """A text of another part of the farm in the reader's language. A text without a translation is returned unchanged."""
    if isinstance(text, Message):
        values = {name: translated(value) if isinstance(value, Message) else value for name, value in text.values.items()}
        return gettext(text.msgid, **values)
    return gettext(text) if text else ""


def reason(pending_reason: PendingReason) -> str:
    """The reason why a job waits, in the reader's language."""
    return " ".join(gettext(sentence, **pending_reason.values) for sentence in pending_reason.sentences)


def _remember(response: Response) -> Response:
    chosen = request.args.get("lang")
    if chosen in LANGUAGES and response.mimetype == "text/html":
        response.set_cookie(COOKIE, chosen, max_age=YEAR_S, samesite="Lax", httponly=True)
    return response
