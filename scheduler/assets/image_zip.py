"""A ZIP of pictures that came from outside: its directory is bounded before it is read, and so is whatever unpacks from it.

Nothing is ever written under the names in it; they only say which picture a table means.
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
"""Files of one ZIP."""
MAX_DIRECTORY_BYTES = 6 * 1024 * 1024
"""Of the directory at a ZIP's end, all of which goes into memory: room for so many files with long names."""
END, LOCATOR_64, END_64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
END_BYTES, LOCATOR_64_BYTES, END_64_BYTES = 22, 20, 56
UNKNOWN_32 = 0xFFFFFFFF
"""What an old field holds where the ZIP64 record has the number."""
SKIPPED = ("__MACOSX/", ".DS_Store", "Thumbs.db")
"""What systems put into a ZIP unasked."""
UTF8_NAME = 0x800
READABLE = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
BROKEN = (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, OSError, ValueError)


class PictureZip:
    """The files of a ZIP by their paths, read one at a time. `field` is what its errors name."""

    def __init__(self, file: BinaryIO, settings: Settings, *, field: str) -> None:
        """Raises InvalidRequest for what is no ZIP, or one with too many files."""
        self.field = field
        self._most = settings.max_asset_bytes
        self._left = self._whole = settings.max_table_bytes
        self._check_directory(file)
        try:
            self._archive = zipfile.ZipFile(file)
        except BROKEN as error:
            self._refuse(f"cannot be read as a ZIP: {str(error)[:200]}", "pack it anew")
        members = [info for info in self._archive.infolist() if not info.is_dir() and not _is_skipped(info.filename)]
        if len(members) > MAX_FILES:
            self._refuse(f"has {len(members)} files", f"send at most {MAX_FILES} at once")
        self._members: dict[str, zipfile.ZipInfo | None] = {}
        self._by_file_name: dict[str, str] = {}
        for info in members:
            path = plain_path(_true_name(info))
            self._members[path] = None if path in self._members else info  # None: which of the two is meant?
            self._by_file_name.setdefault(path.rpartition("/")[2].casefold(), path)

    @property
    def paths(self) -> list[str]:
        """The path of every file in it."""
        return list(self._members)

    def __contains__(self, path: str) -> bool:
        return plain_path(path) in self._members

    def like(self, path: str) -> str | None:
        """A path in the ZIP that may have been meant by one that is not in it."""
        return self._by_file_name.get(plain_path(path).rpartition("/")[2].casefold())

    def read(self, path: str, *, field: str | None = None) -> bytes:
        """The file at `path`, which is in the ZIP. Raises InvalidRequest naming `field`; the whole ZIP if it unpacks too far."""
        field = field or path
        info = self._members[plain_path(path)]
        if info is None:
            raise InvalidRequest([_error(field, "is in the ZIP twice", "give each file its own path")])
        if not _is_inside(info.filename):
            raise InvalidRequest([_error(field, "has a path that leads out of the ZIP", "pack it anew, with plain paths")])
        if info.flag_bits & 1 or stat.S_ISLNK(info.external_attr >> 16) or info.compress_type not in READABLE:
            raise InvalidRequest([_error(field, "is encrypted, a link or packed in a rare way", "send plain files")])
        try:
            with self._archive.open(info) as member:
                data = member.read(self._most + 1)  # what it says of its size is not believed
        except BROKEN as error:
            raise InvalidRequest([_error(field, f"cannot be unpacked: {str(error)[:200]}", "pack it anew")]) from None
        self._left -= len(data)
        if self._left < 0:
            self._refuse(f"unpacks to more than {self._whole} bytes", "send it in parts")
        return data

    def __iter__(self) -> Iterator[tuple[str, bytes | FieldError]]:
        """Every file with its path; one that cannot be read is an error of its own."""
        for path in self._members:
            try:
                yield path, self.read(path)
            except InvalidRequest as error:
                if error.errors[0].field == self.field:
                    raise
                yield path, error.errors[0]

    def close(self) -> None:
        """Let the ZIP go; the file stays open."""
        self._archive.close()

    def _check_directory(self, file: BinaryIO) -> None:
        size = file.seek(0, 2)
        file.seek(max(0, size - END_BYTES - 65_535 - LOCATOR_64_BYTES - END_64_BYTES))
        tail = file.read()
        file.seek(0)
        at = tail.rfind(END)
        if at < 0 or len(tail) - at < END_BYTES:
            self._refuse("cannot be read as a ZIP: it has no end", "pack it anew, or send the whole of it")
        directory = int.from_bytes(tail[at + 12 : at + 16], "little")
        if tail[max(0, at - LOCATOR_64_BYTES) : at].startswith(LOCATOR_64):
            # ZIP64 is also what some programs write for every archive, or for one whose length they did not know
            record = tail[max(0, at - LOCATOR_64_BYTES - END_64_BYTES) : at - LOCATOR_64_BYTES]
            if not record.startswith(END_64) or len(record) < END_64_BYTES:
                self._refuse("cannot be read as a ZIP: its ZIP64 directory is not where it should be", "pack it anew")
            directory = max(int.from_bytes(record[40:48], "little"), 0 if directory == UNKNOWN_32 else directory)
        if directory > MAX_DIRECTORY_BYTES:
            self._refuse("has too many files", f"send at most {MAX_FILES} at once")

    def _refuse(self, detail: str, remedy: str) -> NoReturn:
        raise InvalidRequest([FieldError(field=self.field, detail=detail, remedy=remedy)])


def plain_path(path: str) -> str:
    """A path as it is compared: `/` between its parts, none of them `.`, accents in one form (macOS packs another), nothing
    invisible (Windows puts a mark before a path that is copied).

    >>> plain_path(".\\\\photos\\\\a.jpg")
    'photos/a.jpg'
    """
    parts = remove_invisible(path).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part != ".")


def _true_name(info: zipfile.ZipInfo) -> str:
    """A file's name. Without the mark for UTF-8 it may still be that, or what Chinese Windows writes."""
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
