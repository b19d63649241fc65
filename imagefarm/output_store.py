"""Output storage for image files. A file is complete or absent, and a key is used once.

`OutputStore` is the interface; `LocalOutputStore` keeps files in a folder that all workers and the API share.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from imagefarm.errors import FarmError

TEMPORARY = ".tmp"
"""Folder of files in progress, on the same file system as finished ones."""
PART = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")
"""One part of a key. A part has no leading dot, so it can be neither `..` nor the temporary folder."""
JOB_KEY = re.compile(
    r"^jobs/[0-9a-f]{2}/(?P<job>job_[0-9A-HJKMNP-TV-Z]{26})/(?P<index>\d+)-a(?P<attempt>\d+)(\.[a-z0-9-]+)?\.[a-z0-9]+$"
)


class UnsafeKey(FarmError):
    """A storage key that is not a plain relative path."""

    code = "unsafe_key"


class Stored(NamedTuple):
    """A file of the store: its key and its modification time in seconds since 1970."""

    key: str
    modified_at: float


class OutputStore(Protocol):
    """The interface of an output store. Every failure of the store itself is an OSError."""

    def write(self, key: str, data: bytes) -> None:
        """Store `data` under `key`: durable and complete on return, invisible before. Raises OSError, UnsafeKey."""

    def read(self, key: str) -> bytes:
        """Return the file. Raises FileNotFoundError, UnsafeKey."""

    def open(self, key: str) -> BinaryIO:
        """Open the file for reading. Raises FileNotFoundError, UnsafeKey."""

    def delete(self, key: str) -> bool:
        """Delete the file; False if it did not exist."""

    def walk(self, prefix: str = "") -> Iterator[Stored]:
        """Every finished file whose key is in the folder `prefix`, unordered."""

    def collect_temporary(self, older_than_s: float) -> int:
        """Delete files that dead writers left unfinished; return how many."""


def image_key(job_id: str, index: int, attempt: int, extension: str = "png", channel: str = "") -> str:
    """The key of one image file. It contains the attempt, so two attempts never write the same file.

    >>> image_key("job_01JD0000000000000000000000", 3, 2)
    'jobs/9e/job_01JD0000000000000000000000/3-a2.png'
    >>> image_key("job_01JD0000000000000000000000", 3, 2, "webp", channel="story")
    'jobs/9e/job_01JD0000000000000000000000/3-a2.story.webp'
    """
    shard = hashlib.sha256(job_id.encode()).hexdigest()[:2]  # an id's own characters begin with the time
    return f"jobs/{shard}/{job_id}/{index}-a{attempt}{channel and '.' + channel}.{extension}"


def check_key(key: str) -> str:
    """Return `key` if it is a relative POSIX path of plain names; raise UnsafeKey for anything else."""
    if len(key) > 512 or not all(PART.fullmatch(part) for part in key.split("/")):
        raise UnsafeKey(f"storage key {key[:100]!r} is not a relative path of plain names")
    return key


class LocalOutputStore:
    """Files in a folder. `owner` marks the temporary files of this process.

    A file is written under a temporary name, synced and renamed, and its folder is synced. After a crash it is complete or
    absent.
    """

    def __init__(self, root: Path, owner: str = "anyone") -> None:
        self.root = root
        self.owner = owner

    def path(self, key: str) -> Path:
        """The path of the file of `key`. Raises UnsafeKey."""
        return self.root / check_key(key)

    def write(self, key: str, data: bytes) -> None:
        target = self.path(key)
        temporary = self.root / TEMPORARY / f"{self.owner}-{secrets.token_hex(8)}"
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._put(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _put(self, temporary: Path, target: Path) -> None:
        for last_try in (False, False, True):
            made = _make_folder(target.parent)
            try:
                temporary.rename(target)
                break
            except FileNotFoundError:
                # another process deleted the folder's last file between the two calls, and with it the folder
                if last_try:
                    raise
        for folder in (target.parent, *made):
            _sync_folder(folder)

    def read(self, key: str) -> bytes:
        return self.path(key).read_bytes()

    def open(self, key: str) -> BinaryIO:
        return self.path(key).open("rb")

    def delete(self, key: str) -> bool:
        path = self.path(key)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        with suppress(OSError):  # the folder is not empty
            path.parent.rmdir()
        return True

    def walk(self, prefix: str = "") -> Iterator[Stored]:
        top = self.path(prefix) if prefix else self.root
        for folder, folders, files in os.walk(top):
            if Path(folder) == self.root and TEMPORARY in folders:
                folders.remove(TEMPORARY)
            for name in files:
                path = Path(folder) / name
                with suppress(FileNotFoundError):  # deleted during the walk
                    yield Stored(path.relative_to(self.root).as_posix(), path.stat().st_mtime)

    def collect_temporary(self, older_than_s: float) -> int:
        removed = 0
        folder = self.root / TEMPORARY
        for path in folder.iterdir() if folder.is_dir() else ():
            with suppress(FileNotFoundError):  # its writer has just renamed it
                if time.time() - path.stat().st_mtime > older_than_s:
                    path.unlink()
                    removed += 1
        return removed


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and its parents; return the folders that got a new entry."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
    return [new.parent for new in missing]


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return  # the new file has already been deleted again, together with its folder
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
