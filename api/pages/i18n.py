"""English and Chinese: the reader's language, and the words in it. English text is its own key."""

from __future__ import annotations

from flask import Flask, Response, g, has_request_context, request

from api.pages.chinese import WORDS
from api.pages.english import NAMES
from scheduler.queue.pending_reason import PendingReason

LANGUAGES = {"en": "English", "zh": "中文"}
COOKIE = "imagefarm_lang"
YEAR_S = 365 * 86400


def init_app(app: Flask) -> None:
    """Give templates `_()`, `n_()`, `reason()` and `language()`; keep a language chosen by `?lang=`."""
    app.jinja_env.globals.update(_=translate, n_=plural, reason=reason, language=language, LANGUAGES=LANGUAGES)
    app.after_request(_remember)


def language() -> str:
    """The reader's language: `?lang=`, else the cookie, else what the browser prefers, else English."""
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


def translate(text: str, **values: object) -> str:
    """`text` in the reader's language, with `{name}` filled from `values`."""
    found = (WORDS if language() == "zh" else NAMES).get(text, text)
    return found.format(**values) if values else found


def plural(number: int, one: str, many: str, **values: object) -> str:
    """`one` or `many` by `number`, which they may name as `{n}`."""
    return translate(one if number == 1 else many, n=f"{number:,}", **values)


def reason(pending_reason: PendingReason) -> str:
    """Why a job waits, in the reader's language."""
    return " ".join(translate(sentence, **pending_reason.values) for sentence in pending_reason.sentences)


def _remember(response: Response) -> Response:
    chosen = request.args.get("lang")
    if chosen in LANGUAGES and response.mimetype == "text/html":
        response.set_cookie(COOKIE, chosen, max_age=YEAR_S, samesite="Lax", httponly=True)
    return response
