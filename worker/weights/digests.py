"""SHA-256 of weight files. Each file is hashed once as long as its size and modification time stay the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from imagefarm.errors import RenderError


class WeightDigests:
    """Caches digests in memory, and in `cache_file` if one is given (hashing 20 GB takes about a minute)."""

    def __init__(self, cache_file: Path | None = None) -> None:
        self.cache_file = cache_file
        self.hashed = 0
        """Files read in full since the start."""
        self._known: dict[str, str] = {}
        if cache_file is not None and cache_file.is_file():
            try:
                self._known = {str(key): str(value) for key, value in json.loads(cache_file.read_text("utf-8")).items()}
            except (ValueError, AttributeError):
                cache_file.unlink()  # half written, and only a cache

    def of(self, file: Path) -> str:
        """The SHA-256 of `file`, 64 hexadecimal digits."""
        stat = file.stat()
        key = f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        if key not in self._known:
            with file.open("rb") as stream:
                self._known[key] = hashlib.file_digest(stream, "sha256").hexdigest()
            self.hashed += 1
            self._save()
        return self._known[key]

    def _save(self) -> None:
        if self.cache_file is None:
            return
        self.cache_file.parent.mkdir(parents=True, exist_ok=True)
        # several workers may share the file: each replaces it as a whole, and a lost update only costs hashing again
        draft = self.cache_file.with_name(f"{self.cache_file.name}.{os.getpid()}")
        draft.write_text(json.dumps(self._known), "utf-8")
        draft.replace(self.cache_file)


def combined(digests: Mapping[str, str]) -> str:
    """One digest for a set of files by name: the SHA-256 of their sorted `name digest` lines."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def check_pins(model: str, digests: Mapping[str, str], pins: Mapping[str, str]) -> None:
    """Raise RenderError("model_invalid") unless every pinned file has the digest that the catalogue gives."""
    for name, wanted in pins.items():
        found = digests.get(name)
        if found is None:
            raise RenderError(
                "model_invalid", f"model {model}: the pinned file {name} is missing; known: {', '.join(sorted(digests))}"
            )
        if found != wanted:
            raise RenderError(
                "model_invalid",
                f"model {model}: {name} has SHA-256 {found}, the catalogue pins {wanted};"
                " fetch the pinned weights or change the pin",
            )
