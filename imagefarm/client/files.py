"""Files that the client writes and reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from imagefarm.client.request import API, Download, Steps

IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


def save_file(path: str, file: Path | str) -> Steps[Path]:
    """Write the response to a GET below /api/v1 to `file`, whole or not at all."""
    with _whole_file(Path(file)) as out:
        yield Download(API + path, out)
    return Path(file)


def save_url(url: str, file: Path | str) -> Steps[Path]:
    """Write the file that the farm serves at `url` to `file`, whole or not at all.

    Only the path of the URL is used, because its host may be a name that only the farm can resolve.
    """
    parts = urlsplit(url)
    with _whole_file(Path(file)) as out:
        yield Download(parts.path + (f"?{parts.query}" if parts.query else ""), out)
    return Path(file)


@contextmanager
def _whole_file(file: Path) -> Iterator[BinaryIO]:
    part = file.with_name(file.name + ".part")
    with part.open("wb") as out:
        yield out
    part.replace(file)
