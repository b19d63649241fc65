"""Reads a ZIP of uploaded images. The sizes of its directory and of its unpacked files are bounded.

Nothing is ever written under the names in the ZIP; they only identify the images that a table refers to.
"""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO, NoReturn

from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.settings import Settings
from imagefarm.text import remove_invisible

MAX_FILES = 20_000
"""Files in one ZIP."""
MAX_DIRECTORY_BYTES = 6 * 1024 * 1024
"""Size of the directory at a ZIP's end, which is read into memory: enough for `MAX_FILES` files with long names."""
END, LOCATOR_64, END_64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
END_BYTES, LOCATOR_64_BYTES, END_64_BYTES = 22, 20, 56
UNKNOWN_32 = 0xFFFFFFFF
"""Value of a 32-bit field whose number is in the ZIP64 record."""
SKIPPED = ("__MACOSX/", ".DS_Store", "Thumbs.db")
"""Files that operating systems add to a ZIP."""
UTF8_NAME = 0x800
READABLE = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
BROKEN = (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, OSError, ValueError)


class PictureZip:
    """The files of a ZIP by path, read one at a time. `field` is the field that errors name."""

    def __init__(self, file: BinaryIO, settings: Settings, *, field: str) -> None:
        """Raises InvalidRequest if the file is not a ZIP, or has too many files."""
        self.field = field
        self._most = settings.max_asset_bytes
        self._left = self._whole = settings.max_table_bytes
        self._check_directory(file)
        try:
            self._archive = zipfile.ZipFile(file)
        except BROKEN as error:
            self._refuse(f"cannot be read as a ZIP: {str(error)[:200]}", "pack it again")
        members = [info for info in self._archive.infolist() if not info.is_dir() and not _is_skipped(info.filename)]
        if len(members) > MAX_FILES:
            self._refuse(f"has {len(members)} files", f"send at most {MAX_FILES} at once")
        self._members: dict[str, zipfile.ZipInfo | None] = {}
        self._by_file_name: dict[str, str] = {}
        for info in members:
            path = plain_path(_true_name(info))
            self._members[path] = None if path in self._members else info  # None: ambiguous
            self._by_file_name.setdefault(path.rpartition("/")[2].casefold(), path)

    @property
    def paths(self) -> list[str]:
        """The path of every file in the ZIP."""
        return list(self._members)

    def __contains__(self, path: str) -> bool:
        return plain_path(path) in self._members

    def like(self, path: str) -> str | None:
        """A path in the ZIP with the file name of `path`, which is not in the ZIP; None if there is none."""
        return self._by_file_name.get(plain_path(path).rpartition("/")[2].casefold())

    def read(self, path: str, *, field: str | None = None) -> bytes:
        """Read the file at `path`. Raises InvalidRequest naming `field`, or the whole ZIP if it unpacks to too many bytes."""
        field = field or path
        info = self._members[plain_path(path)]
        if info is None:
            raise InvalidRequest([_error(field, "is in the ZIP twice", "give each file its own path")])
        if not _is_inside(info.filename):
            raise InvalidRequest([_error(field, "has a path that leads out of the ZIP", "pack it again, with plain paths")])
        if info.flag_bits & 1 or stat.S_ISLNK(info.external_attr >> 16) or info.compress_type not in READABLE:
            raise InvalidRequest([_error(field, "is encrypted, a link or compressed in an unsupported way", "send plain files")])
        try:
            with self._archive.open(info) as member:
                data = member.read(self._most + 1)  # the size in the header is not trusted
        except BROKEN as error:
            raise InvalidRequest([_error(field, f"cannot be unpacked: {str(error)[:200]}", "pack it again")]) from None
        self._left -= len(data)
        if self._left < 0:
            self._refuse(f"unpacks to more than {self._whole} bytes", "send it in parts")
        return data

    def __iter__(self) -> Iterator[tuple[str, bytes | FieldError]]:
        """Yield every file with its path. A file that cannot be read yields an error instead of bytes."""
        for path in self._members:
            try:
                yield path, self.read(path)
            except InvalidRequest as error:
                if error.errors[0].field == self.field:
                    raise
                yield path, error.errors[0]

    def close(self) -> None:
        """Close the ZIP reader; the file stays open."""
        self._archive.close()

    def _check_directory(self, file: BinaryIO) -> None:
        size = file.seek(0, 2)
        file.seek(max(0, size - END_BYTES - 65_535 - LOCATOR_64_BYTES - END_64_BYTES))
        tail = file.read()
        file.seek(0)
        at = tail.rfind(END)
        if at < 0 or len(tail) - at < END_BYTES:
            self._refuse("cannot be read as a ZIP: it has no end", "pack it again, or send the complete file")
        directory = int.from_bytes(tail[at + 12 : at + 16], "little")
        if tail[max(0, at - LOCATOR_64_BYTES) : at].startswith(LOCATOR_64):
            # some programs write ZIP64 for every archive, or for one whose length was not known in advance
            record = tail[max(0, at - LOCATOR_64_BYTES - END_64_BYTES) : at - LOCATOR_64_BYTES]
            if not record.startswith(END_64) or len(record) < END_64_BYTES:
                self._refuse("cannot be read as a ZIP: its ZIP64 directory is not where it should be", "pack it again")
            directory = max(int.from_bytes(record[40:48], "little"), 0 if directory == UNKNOWN_32 else directory)
        if directory > MAX_DIRECTORY_BYTES:
            self._refuse("has too many files", f"send at most {MAX_FILES} at once")

    def _refuse(self, detail: str, remedy: str) -> NoReturn:
        raise InvalidRequest([FieldError(field=self.field, detail=detail, remedy=remedy)])


def plain_path(path: str) -> str:
    """A path in the form used for comparison: `/` between its parts, no `.` parts, no invisible characters, composed accents.

    macOS writes decomposed accents. Windows writes an invisible mark before a path that was copied.

    >>> plain_path(".\\\\photos\\\\a.jpg")
    'photos/a.jpg'
    """
    parts = remove_invisible(path).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part != ".")


def _true_name(info: zipfile.ZipInfo) -> str:
    """The name of a file. Without the UTF-8 flag it may still be UTF-8, or GB 18030 as Chinese Windows writes it."""
    if info.flag_bits & UTF8_NAME or info.filename.isascii():
        return info.filename
    with suppress(UnicodeError):
        raw = info.filename.encode("cp437")
        for codec in ("utf-8", "gb18030"):
            with suppress(UnicodeError):
                return raw.decode(codec)
    return info.filename


def _is_inside(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return ".." not in parts and parts[0] != "" and not re.match(r"[A-Za-z]:", name)


def _is_skipped(name: str) -> bool:
    return name.startswith(SKIPPED) or name.rsplit("/", 1)[-1] in SKIPPED


def _error(field: str, detail: str, remedy: str) -> FieldError:
    return FieldError(field=field[:100].encode("utf-8", "backslashreplace").decode(), detail=detail, remedy=remedy)
