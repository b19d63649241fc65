"""How every page leaves: rendered, with its policy, and unchanged pages as 304.

A page is a template and a view: frozen dataclasses with nothing in them but what is shown. Ages are shown from absolute
times, so an unchanged farm gives an equal view and with it an equal ETag, however often somebody asks.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import urlencode

from flask import Flask, Response, g, render_template, request, stream_template
from markupsafe import Markup, escape

from api.http.request_priority import YIELD_BUDGET
from api.pages import i18n
from imagefarm.version import __version__

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'"
)


def init_app(app: Flask) -> None:
    """Give templates the filters for times and numbers."""
    app.jinja_env.filters.update(
        iso=iso,
        clock=clock,
        marked=marked,
        seconds=seconds,
        number=number,
        size=file_size,
        in_language=in_language,
    )
    app.jinja_env.globals["version"] = __version__


def page(template: str, view: object, status: int = 200, **more: object) -> Response:
    """The page of a view, or 304 if the browser has it already and the page is for this browser alone."""
    shown = repr((template, i18n.language(), request.full_path, view, more))
    tag = hashlib.blake2s(shown.encode("utf-8", "backslashreplace")).hexdigest()[:24]
    if status == HTTPStatus.OK and not g.get("whole") and request.if_none_match.contains_weak(tag):
        response = Response(status=HTTPStatus.NOT_MODIFIED)
    else:
        response = Response(_rendered(f"pages/{template}", view=view, **more), status, content_type="text/html; charset=utf-8")
    if status == HTTPStatus.OK:
        response.set_etag(tag, weak=True)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Content-Language"] = i18n.language()
    response.headers["Cache-Control"] = "private, no-cache"
    # with no-referrer, browsers send the farm's own forms from the origin "null"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Vary"] = "Accept-Language, Cookie"
    return response


def _rendered(template: str, **values: object) -> str:
    budget = YIELD_BUDGET.get()
    if budget is None:
        return render_template(template, **values)
    return "".join(budget.between(stream_template(template, **values)))


def iso(at: float) -> str:
    """A time for machines: RFC 3339 in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(at: float) -> str:
    """A time for people without JavaScript, which shows it as an age in their own zone."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def seconds(value: float) -> str:
    """A length of time in its two largest units at most: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min, 3 d."""
    _ = i18n.gettext
    if value < 10:
        tenths = f"{value:.1f}".removesuffix(".0")
        return _("%(n)s s", n=tenths)
    whole = round(value)
    if whole < 60:
        return _("%(n)s s", n=whole)
    if whole < 600:
        return _("%(n)s min", n=whole // 60) + (" " + _("%(n)s s", n=whole % 60) if whole % 60 else "")
    if whole < 3600:
        return _("%(n)s min", n=whole // 60)
    if whole < 86400:
        return _("%(n)s h", n=whole // 3600) + (" " + _("%(n)s min", n=whole % 3600 // 60) if whole % 3600 // 60 else "")
    return _("%(n)s d", n=whole // 86400)


def number(value: float) -> str:
    """A whole number with its thousands apart."""
    return f"{value:,.0f}"


def file_size(value: float) -> str:
    """Bytes in the largest unit that leaves a digit before the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def marked(text: str) -> Markup:
    """Text with its `commands` set as code; everything in it stays text."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


def in_language(lang: str) -> str:
    """The address of this page in another language."""
    parameters = [(name, value) for name, value in request.args.items(multi=True) if name != "lang"]
    return f"{request.path}?{urlencode([*parameters, ('lang', lang)])}"
