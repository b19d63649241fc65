"""Rendering of pages: the template, the security headers, and 304 for an unchanged page.

A page is a template and a view of frozen dataclasses that hold only the data shown. The browser computes ages from absolute
times, so an unchanged farm gives an equal view and an equal ETag at every request.
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
    """Render a view, or return 304 if the browser has the same page. A page for the shared cache is always complete."""
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
    # with no-referrer, browsers would send the farm's own forms with the origin "null"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Vary"] = "Accept-Language, Cookie"
    return response


def _rendered(template: str, **values: object) -> str:
    budget = YIELD_BUDGET.get()
    if budget is None:
        return render_template(template, **values)
    return "".join(budget.between(stream_template(template, **values)))


def iso(at: float) -> str:
    """Format seconds since 1970 for machines: RFC 3339 in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(at: float) -> str:
    """Format seconds since 1970 for readers without JavaScript. With it, the page shows an age or the local time."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def seconds(value: float) -> str:
    """Format a duration in at most two units: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min, 3 d."""
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
    """Format a whole number with thousands separators."""
    return f"{value:,.0f}"


def file_size(value: float) -> str:
    """Format bytes in the largest unit that leaves at least one digit before the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def marked(text: str) -> Markup:
    """Escape a text and mark its `commands` as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


def in_language(lang: str) -> str:
    """The URL of this page in another language."""
    parameters = [(name, value) for name, value in request.args.items(multi=True) if name != "lang"]
    return f"{request.path}?{urlencode([*parameters, ('lang', lang)])}"
