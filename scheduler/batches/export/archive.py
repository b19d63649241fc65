"""Streams a batch's images as one ZIP file. Memory holds one chunk of one image, whatever the number of images."""

from __future__ import annotations

import csv
import io
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO, Any, BinaryIO

from imagefarm.logs import get_logger
from imagefarm.output_store import OutputStore
from scheduler.batches.export.manifest import COLUMNS, Entry, neutral

log = get_logger(__name__)

CHUNK_BYTES = 256 * 1024
MANIFEST = "manifest.csv"
REJECTED = "rejected"
"""The pick of a rejected image."""


class _Pipe(io.RawIOBase):
    """A buffer that ZipFile writes to and the stream reads from."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """Return and clear the bytes written since the last call."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


def archived(found: Iterable[Entry], pick: str | None) -> Iterator[Entry]:
    """The entries that an archive contains: without a `pick`, all except rejected images."""
    return (entry for entry in found if pick is not None or entry.pick != REJECTED)


def stream_zip(found: Iterable[Entry], outputs: OutputStore) -> Iterator[bytes]:
    """Yield the ZIP in pieces: every image uncompressed, then the manifest of these images.

    An image whose file is missing is left out, and its line in the manifest says so. Raises OSError when the output store fails.
    """
    pipe = _Pipe()
    with tempfile.TemporaryFile("w+b") as lines:
        text = io.TextIOWrapper(lines, encoding="utf-8-sig", newline="", write_through=True)
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
            for entry in found:
                columns = entry.columns()
                if entry.storage_key:
                    try:
                        file = outputs.open(entry.storage_key)
                    except FileNotFoundError:
                        log.warning("archive.missing", key=entry.storage_key)
                        columns |= {"file": "", "reason": "its file is gone from the store"}
                    else:
                        with file:
                            yield from _store(archive, pipe, entry.file, entry.created_at, file)
                writer.writerow([neutral(value) for value in columns.values()])
            text.flush()
            lines.seek(0)
            yield from _store(archive, pipe, MANIFEST, time.time(), lines)
            text.detach()
        yield pipe.take()


def _store(archive: zipfile.ZipFile, pipe: _Pipe, name: str, at: float, file: IO[bytes] | BinaryIO) -> Iterator[bytes]:
    info = zipfile.ZipInfo(name, time.gmtime(max(at, 315_532_800))[:6])  # ZIP has no dates before 1980
    info.external_attr = 0o644 << 16
    with archive.open(info, "w") as member:
        while data := file.read(CHUNK_BYTES):
            member.write(data)
            yield pipe.take()
