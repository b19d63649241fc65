"""Folders and files that only the farm's own user can open: they hold prompts, customers' images and key hashes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from imagefarm.logs import get_logger

log = get_logger(__name__)

FOLDER_MODE, FILE_MODE = 0o700, 0o600
OTHERS = 0o077
"""The permissions of everybody but the owner."""


def make_private_folder(path: Path) -> None:
    """Make the folder, closed to other users. Raises OSError if it cannot be made.

    An existing folder keeps its mode, because it may be anybody's; if other users can open it, a warning says so.
    """
    try:
        path.mkdir(mode=FOLDER_MODE, parents=True)
    except FileExistsError:
        if not path.is_dir():
            raise
        if path.stat().st_mode & OTHERS:
            log.warning("folder.open_to_others", path=str(path), remedy=f"chmod 700 {path}")


def make_private_file(path: Path) -> None:
    """Create an empty file that only this user can open, or restrict an existing file of this user.

    An existing file is never opened: closing any descriptor of a SQLite database drops all locks that this process holds on it.
    """
    with suppress(OSError):  # the next open reports the reason
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
        except FileExistsError:
            found = path.stat()
            if found.st_uid == os.geteuid() and found.st_mode & OTHERS:
                path.chmod(FILE_MODE)
