"""The catalogue `models.toml`: the models of the farm, their LoRAs and their upscalers."""

from __future__ import annotations

import tomllib
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from imagefarm.errors import ConfigurationError, UnknownModel
from imagefarm.model_entry import LoraEntry, ModelEntry, UpscalerEntry
from imagefarm.recipe import JobRequest, Recipe
from imagefarm.request_resolver import RequestResolver
from imagefarm.settings import shipped


class Catalogue:
    """All models, by name and alias."""

    def __init__(
        self,
        entries: list[ModelEntry],
        loras: dict[str, LoraEntry],
        folder: Path,
        default: str,
        upscalers: dict[str, UpscalerEntry] | None = None,
    ) -> None:
        self.entries = {entry.name: entry for entry in entries}
        self.loras = loras
        self.upscalers = upscalers or {}
        self.folder = folder
        self.default = default

    @classmethod
    def read(cls, file: Path) -> Catalogue:
        """Read a catalogue. Raises ConfigurationError with the file, the model and the field."""
        try:
            data = tomllib.loads(file.read_text("utf-8"))
        except OSError as error:
            raise ConfigurationError(f"cannot read the catalogue {file}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{file}: {error}") from None
        try:
            entries = [ModelEntry(name=name, **fields) for name, fields in data.get("models", {}).items()]
            loras = {name: LoraEntry(**fields) for name, fields in data.get("loras", {}).items()}
            upscalers = {name: UpscalerEntry(**fields) for name, fields in data.get("upscalers", {}).items()}
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigurationError(f"{file}: {first['input'] if where == 'name' else where}: {first['msg']}") from None
        if not entries:
            raise ConfigurationError(f"{file} has no [models.NAME] table")
        default = data.get("default", entries[0].name)
        if "lanczos" in upscalers:
            raise ConfigurationError(f"{file}: upscalers.lanczos: the name is taken; it is always there")
        catalogue = cls(entries, loras, file.parent, default, upscalers)
        if default not in catalogue.entries:
            raise ConfigurationError(f"{file}: default = {default!r} is not one of its models")
        return catalogue

    @cached_property
    def by_alias(self) -> dict[str, ModelEntry]:
        return {alias: entry for entry in self.entries.values() for alias in (entry.name, *entry.aliases)}

    def names(self) -> list[str]:
        return list(self.entries)

    def get(self, name: str) -> ModelEntry:
        """Return the entry with this name or alias. Raises UnknownModel with the known names."""
        try:
            return self.by_alias[name]
        except KeyError:
            raise UnknownModel(name, self.names()) from None

    def local_path(self, source: str) -> Path | None:
        """The path of `source` if it is one, otherwise None.

        A relative path starts at the catalogue's folder. If nothing is there, it starts at the files in the package (the demo
        model).
        """
        path = Path(source).expanduser()
        candidate = self.folder / path
        if not candidate.exists() and (ships := shipped(source)).exists():
            candidate = ships
        looks_local = (
            candidate.exists() or source.startswith((".", "/", "~")) or source.endswith(".safetensors") or source.count("/") != 1
        )
        return candidate if looks_local else None

    def resolve(self, request: JobRequest) -> tuple[Recipe, list[str]]:
        """Turn a request into a complete recipe; also return warnings about fields that the model ignores.

        Raises UnknownModel, and InvalidRequest with every wrong field and its remedy.
        """
        entry = self.get(request.model or self.default)
        resolver = RequestResolver(request, entry, entries=self.entries, loras=self.loras, upscalers=self.upscalers)
        return resolver.resolve()
