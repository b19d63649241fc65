"""Channels: the crops, sizes and formats that each shop needs, as data. All are made from one master image."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from imagefarm.errors import ConfigurationError, FieldError, InvalidRequest
from imagefarm.recipe import Format, Quality, Side
from imagefarm.text import NotBool, Text

PRESETS = Path(__file__).with_name("channels.toml")
CHANNEL_NAME = r"^[a-z0-9][a-z0-9-]{0,31}$"
MAX_CHANNELS = 12
ChannelName = Annotated[str, Field(pattern=CHANNEL_NAME)]


class Channel(BaseModel):
    """One form in which an image is delivered."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ChannelName
    title: Annotated[Text, Field(max_length=200)] = ""
    width: Side
    height: Side
    fit: Literal["pad", "crop"] = "pad"
    background: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] = "#ffffff"
    margin: Annotated[float, Field(ge=0, le=0.4, allow_inf_nan=False), NotBool] = 0.0
    focus: Literal["centre", "subject"] = "centre"
    format: Format = "jpeg"
    quality: Quality = 90
    max_bytes: Annotated[int, Field(ge=2048, le=100_000_000), NotBool] | None = None

    @model_validator(mode="after")
    def _can_be_made_smaller(self) -> Channel:
        if self.max_bytes is not None and self.format == "png":
            raise ValueError("max_bytes needs a format with a quality: jpeg or webp")
        if self.margin and self.fit == "crop":
            raise ValueError('margin needs fit = "pad"')
        return self


def presets(own: Path | None = None) -> dict[str, Channel]:
    """The channels that batches may name: the project's own and those of the farm's file. Raises ConfigurationError."""
    found: dict[str, Channel] = {}
    for file in (PRESETS, own):
        if file is not None:
            found |= _read(file)
    return found


def resolve(wanted: list[str | Channel], known: dict[str, Channel]) -> list[Channel]:
    """Channels as a batch names or describes them. Raises InvalidRequest for unknown or repeated names."""
    channels: list[Channel] = []
    for place, each in enumerate(wanted):
        channel = known.get(each) if isinstance(each, str) else each
        if channel is None:
            remedy = f"use one of {', '.join(sorted(known))}, or describe it: name, width, height ..."
            raise InvalidRequest([FieldError(field=f"channels.{place}", detail=f"no channel {each!r}", remedy=remedy)])
        if channel.name in {other.name for other in channels}:
            detail = f"{channel.name!r} is there twice"
            raise InvalidRequest([FieldError(field=f"channels.{place}", detail=detail, remedy="give each its own name")])
        channels.append(channel)
    return channels


def _read(file: Path) -> dict[str, Channel]:
    try:
        tables: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
        return {name: Channel(name=name, **fields) for name, fields in tables.items()}
    except OSError as error:
        raise ConfigurationError(f"cannot read the channels {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError) as error:
        raise ConfigurationError(f"{file}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(f"{file}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
