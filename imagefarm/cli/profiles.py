"""`imagefarm profiles list | add | remove`: named farms, each with its address and key, in a file of the user.

The file is `imagefarm/profiles.toml` in the user's folder for settings. Only its owner can read it (mode 0600).
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from imagefarm.cli.output import AsJson, note, print_json, print_table
from imagefarm.errors import ConfigurationError, FieldError, InvalidRequest, NotFound

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Profile:
    """The address and key of a farm."""

    url: str
    key: str | None = None


def profiles_file() -> Path:
    """The profiles' file: under $XDG_CONFIG_HOME if that is set, otherwise where this system keeps settings."""
    given = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    folder = given / "imagefarm" if given.is_absolute() else Path(typer.get_app_dir("imagefarm"))
    return folder / "profiles.toml"


def read_profiles() -> dict[str, Profile]:
    """All profiles by name. Raises ConfigurationError for an invalid file."""
    file = profiles_file()
    try:
        entries = tomllib.loads(file.read_text("utf-8"))
        return {name: _profile(entry) for name, entry in entries.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:  # invalid UTF-8, TOML or profile; TOML's message has positions and no values, so no key is shown
        raise ConfigurationError(
            f"{file} is not a file of profiles: {error}; correct it, or remove it and add the profiles again"
        ) from None


def get_profile(name: str) -> Profile:
    """A profile by its name. Raises NotFound."""
    profiles = read_profiles()
    if name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise NotFound(f"no profile {name[:60]!r}; there are: {known}. `imagefarm profiles add` creates one")
    return profiles[name]


def register(app: typer.Typer) -> None:
    area = typer.Typer(help="Farms by name, for --profile.", no_args_is_help=True)
    area.command("list")(list_)
    area.command()(add)
    area.command()(remove)
    app.add_typer(area, name="profiles")


def list_(as_json: AsJson = False) -> None:
    """List the profiles. Keys are not shown."""
    rows = [(name, profile.url, profile.key is not None) for name, profile in sorted(read_profiles().items())]
    if as_json:
        print_json([{"name": name, "url": url, "has_key": has_key} for name, url, has_key in rows])
    else:
        print_table(("profile", "url", "key"), ((name, url, "yes" if has_key else "no") for name, url, has_key in rows))


def add(
    name: Annotated[str, typer.Argument(help="Name of the new profile.")],
    farm: Annotated[str, typer.Option("--url", help="The farm's address.")],
    key_stdin: Annotated[bool, typer.Option("--key-stdin", help="Read the key from standard input.")] = False,
) -> None:
    """Add or replace a profile. Asks for the API key and stores it in a file that only you can read."""
    if NAME.fullmatch(name) is None:
        raise _wrong("name", f"{name[:70]!r} is not a valid name", "use letters, digits, - and _, 64 at most")
    if not _is_address(farm):
        raise _wrong("--url", f"{farm[:100]!r} is not a farm's address", "write it like https://farm.example")
    key = _asked_key(key_stdin)
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise _wrong("key", "has characters that a key cannot have", "copy it again; `imagefarm keys create` makes one")
    _write(read_profiles() | {name: Profile(farm.rstrip("/"), key or None)})
    note(f"{name} is in {profiles_file()}; use it with `imagefarm --profile {name} ...` or IMAGEFARM_PROFILE={name}")


def remove(name: Annotated[str, typer.Argument(help="Name of the profile.")]) -> None:
    """Remove a profile and its key."""
    get_profile(name)
    _write({other: profile for other, profile in read_profiles().items() if other != name})
    note(f"{name} is removed")


def _profile(entry: object) -> Profile:
    if not isinstance(entry, dict) or not isinstance(entry.get("url"), str) or not isinstance(entry.get("key", ""), str):
        raise ValueError("a profile is a table with the string `url` and optionally the string `key`")
    return Profile(entry["url"], entry.get("key") or None)


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None and text.isprintable()


def _asked_key(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().strip()
    if not sys.stdin.isatty():
        return ""
    answer: str = typer.prompt("API key (empty for none)", default="", hide_input=True, show_default=False, err=True)
    return answer.strip()


def _wrong(field: str, detail: str, remedy: str) -> InvalidRequest:
    return InvalidRequest([FieldError(field=field, detail=detail, remedy=remedy)])


def _write(profiles: Mapping[str, Profile]) -> None:
    """Replace the file atomically: after a crash it has the old or the new content."""
    lines = ["# Written by `imagefarm profiles`. It holds keys: keep it to yourself.\n"]
    for called, profile in profiles.items():
        lines.append(f"\n[{json.dumps(called)}]\nurl = {json.dumps(profile.url)}\n")  # a JSON string is also a TOML string
        if profile.key is not None:
            lines.append(f"key = {json.dumps(profile.key)}\n")
    file = profiles_file()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=".profiles-")  # mode 0600 from its first moment
        part = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.writelines(lines)
            part.replace(file)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigurationError(f"cannot write {file}: {error.strerror}") from None
