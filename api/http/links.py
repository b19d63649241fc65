"""Addresses: the farm's own, the next page of a list, and paths that stay on this farm."""

from __future__ import annotations

from urllib.parse import urlencode

from flask import request


def base_url() -> str:
    """The farm as the caller of the current request addresses it, without a slash at the end."""
    return request.host_url.rstrip("/")


def next_link(cursor: str | None) -> dict[str, str]:
    """The `Link` header to the next page of the current request's list."""
    if cursor is None:
        return {}
    parameters = [(name, value) for name, value in request.args.items(multi=True) if name != "cursor"]
    return {"Link": f'<{request.base_url}?{urlencode([*parameters, ("cursor", cursor)])}>; rel="next"'}


def safe_path(path: str) -> str:
    """`path` if it stays on this farm, else its front page."""
    inside = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if inside else "/"
