"""URLs: the farm's own base URL, the next page of a list, and paths that stay on this farm."""

from __future__ import annotations

from urllib.parse import urlencode

from flask import request


def base_url() -> str:
    """The farm's URL as the current request addresses it, without a trailing slash."""
    return request.host_url.rstrip("/")


def next_link(cursor: str | None) -> dict[str, str]:
    """The `Link` header to the next page of the current request's list; empty on the last page."""
    if cursor is None:
        return {}
    parameters = [(name, value) for name, value in request.args.items(multi=True) if name != "cursor"]
    return {"Link": f'<{request.base_url}?{urlencode([*parameters, ("cursor", cursor)])}>; rel="next"'}


def safe_path(path: str) -> str:
    """Return `path` if it is a path on this farm, else `/`."""
    inside = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if inside else "/"
