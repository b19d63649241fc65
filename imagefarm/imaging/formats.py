"""Image formats: file extensions and media types."""

from __future__ import annotations

MEDIA = {"png": "image/png", "jpeg": "image/jpeg", "jpg": "image/jpeg", "webp": "image/webp"}
EXTENSIONS = {"jpeg": "jpg"}


def extension(picture_format: str) -> str:
    """The usual file extension, without the dot.

    >>> extension("jpeg"), extension("png")
    ('jpg', 'png')
    """
    return EXTENSIONS.get(picture_format, picture_format)
