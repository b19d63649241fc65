"""Folders and files that only the farm's own user may open: they hold prompts, customers' pictures and hashes of keys."""

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
    """Make an empty file, or close an existing one of this user, to other users."""
    with suppress(OSError):  # whatever opens the file next reports why it cannot
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            found = os.fstat(descriptor)
            if found.st_uid == os.geteuid() and found.st_mode & OTHERS:
                os.fchmod(descriptor, FILE_MODE)
        finally:
            os.close(descriptor)
