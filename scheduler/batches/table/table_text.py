"""Reads a table's bytes as lines of text: detects the charset, rejects other file types, and explains undecodable text."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from imagefarm.errors import FieldError, InvalidRequest
from scheduler.batches.table.charset_guess import guess_charsets

MAX_LINE_CHARS = 1024 * 1024
CHUNK_BYTES = 256 * 1024
HEAD_BYTES = 64 * 1024
CHARSETS = ("utf-8", "utf-16", "gb18030", "gbk", "big5", "shift_jis", "euc-kr", "windows-1252", "iso-8859-1")
"""Common charsets, for errors and docs. Every name that Python knows for one of the codecs below is accepted."""
CODECS = {
    **{name: name for name in ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")},
    **dict.fromkeys(("gb18030", "gbk", "gb2312"), "gb18030"),
    **dict.fromkeys(("euc_kr", "cp949"), "cp949"),
    **dict.fromkeys(("shift_jis", "cp932"), "cp932"),
    **{name: name for name in ("big5", "big5hkscs", "cp950", "euc_jp", "koi8-r", "koi8-u", "tis-620", "cp874")},
    **dict.fromkeys(("iso8859-1", "ascii", "cp1252"), "cp1252"),
    **{f"iso8859-{part}": f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16)},
    **{f"cp{page}": f"cp{page}" for page in (437, 737, 775, 850, 852, 855, 857, 858, 862, 866, 1250, 1251, *range(1253, 1259))},
    **{name: name for name in ("mac-roman", "mac-latin2", "mac-cyrillic")},
}
"""By Python's codec name: the codec that decodes the text, which covers what the name commonly stands for."""
BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"\x84\x31\x95\x33", "gb18030"),
)
"""Byte order marks. A longer one comes before the one that it begins with."""
SAVE_AS = "in the spreadsheet, save it as `CSV UTF-8`"
NO_TABLE = (
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook (.xls), not text", SAVE_AS),
    (b"\x1f\x8b", "is compressed (gzip)", "unpack it first"),
    (b"\x89PNG", "is a PNG picture, not a table", "send it to /api/v1/assets, and a table that names it here"),
    (b"\xff\xd8\xff", "is a JPEG picture, not a table", "send it to /api/v1/assets, and a table that names it here"),
    (b"%PDF", "is a PDF file, not a table", "send the table that it was made from, as CSV"),
    (b"{\\rtf", "is an RTF document, not a table", "save it as plain text"),
)
END_OF_FILE = "\x1a"
"""The character that DOS programs write at the end of a text."""


def refuse(column: str, detail: str, remedy: str, row: int | None = None) -> NoReturn:
    """Raise InvalidRequest for an error of the whole table."""
    raise InvalidRequest([FieldError(field=column, detail=detail, remedy=remedy, row=row)])


@dataclass(frozen=True, slots=True)
class TableText:
    """A table's lines with their line ends, and the charset that they were decoded with."""

    lines: Iterator[str]
    charset: str


def read_text(stream: BinaryIO, charset: str | None = None, *, fallback: str | None = None) -> TableText:
    """Read the lines of a table. A byte order mark decides the charset, then `charset`; `fallback` is for text that is not UTF-8.

    Raises InvalidRequest naming the detected file type, or the charsets that fit.
    """
    wanted = None if charset is None else _codec(charset)
    spare = None if fallback is None else _codec(fallback)
    head = _read_head(stream)
    _check_is_text(head)
    marked = next((codec for mark, codec in BOMS if head.startswith(mark)), None)
    codec = marked or wanted or _unmarked_utf16(head)
    name = charset if codec == wanted and charset is not None else codec or "utf-8"
    if codec is None and spare is not None and not spare.startswith("utf-") and not _has_utf8(head):
        codec, name = spare, str(fallback)
    if codec in {"utf-16", "utf-32"} and marked is None and b"\x00" not in head:
        refuse("table", f"is not {name}: no byte of it is 0", "leave the charset out, or name another")
    lines = _without_end_mark(_lines(io.BufferedReader(_Borrowed(head, stream), CHUNK_BYTES), codec or "utf-8", name.lower()))
    return TableText(lines, codec or "utf-8")


def _codec(charset: str) -> str:
    try:
        return CODECS[codecs.lookup(charset.strip()).name]
    except (LookupError, ValueError):
        refuse("charset", f"{charset[:40]!r} is not known", "send UTF-8, or one of " + ", ".join(CHARSETS))


def _read_head(stream: BinaryIO) -> bytes:
    head = b""
    while len(head) < HEAD_BYTES and (piece := stream.read(HEAD_BYTES - len(head))):
        head += piece
    return head


def _check_is_text(head: bytes) -> None:
    """Raise InvalidRequest for a workbook, an image or another file that is not a table."""
    if head.startswith(b"PK\x03\x04"):
        if b"xl/" in head or b"[Content_Types].xml" in head:
            refuse("table", "is an Excel workbook (.xlsx), not text", SAVE_AS)
        if b"opendocument.spreadsheet" in head[:200]:
            refuse("table", "is an OpenDocument spreadsheet (.ods), not text", SAVE_AS)
        refuse("table", "is a ZIP file", "send the table as text, and a ZIP of its pictures as `archive`")
    for begins, detail, remedy in NO_TABLE:
        if head.startswith(begins):
            refuse("table", detail, remedy)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith((b"<!doctype html", b"<html", b"<table")):
        refuse("table", "is a web page, not a table", "save the spreadsheet itself as `CSV UTF-8`, not the page that shows it")


def _unmarked_utf16(head: bytes) -> str | None:
    """Detect UTF-16 without a byte order mark: every other byte of its ASCII characters is 0."""
    even, odd = head[:4096:2], head[1:4096:2]
    if even and odd.count(0) * 3 > len(odd) and not even.count(0):
        return "utf-16-le"
    return "utf-16-be" if even.count(0) * 3 > len(even) and not odd.count(0) else None


def _has_utf8(head: bytes) -> bool:
    """Whether the text has characters outside ASCII and all are valid UTF-8."""
    if head.isascii():
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


class _Borrowed(io.RawIOBase):
    """The bytes that were read ahead, then the caller's stream. Closing this stream leaves the caller's open."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = io.BytesIO(head)
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head.read(len(buffer)) or self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _lines(raw: io.BufferedReader, codec: str, name: str) -> Iterator[str]:
    text = io.TextIOWrapper(raw, encoding=codec, errors="strict", newline="")
    number = 0
    try:
        while True:
            number += 1
            line = text.readline(MAX_LINE_CHARS + 1)
            if not line:
                return
            if len(line) > MAX_LINE_CHARS:
                refuse("table", f"line {number} is longer than {MAX_LINE_CHARS} characters", "shorten its cells")
            yield line.lstrip("\ufeff") if number == 1 else line
    except UnicodeError as error:
        _refuse_charset(error, name, number)


def _refuse_charset(error: UnicodeError, name: str, number: int) -> NoReturn:
    guesses = guess_charsets(error.object, error.start) if isinstance(error, UnicodeDecodeError) else []
    read = ", ".join(f"charset={guess.charset} if it is meant to read {guess.sample!r}" for guess in guesses)
    remedy = f"save the table as `CSV UTF-8`, or send {read}" if read else "save the table as `CSV UTF-8`, or send its charset"
    refuse("table", f"the text at or after line {number} is not {name}", remedy)


def _without_end_mark(lines: Iterator[str]) -> Iterator[str]:
    before: str | None = None
    for line in lines:
        if before is not None:
            yield before
        before = line
    if before is not None and (rest := before.rstrip(END_OF_FILE)):
        yield rest
