"""The farm on this machine's data folder: a running farm writes its address into the folder.

The data folder is found by the same rules as in `imagefarm.settings`. The client reads no other setting.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

from imagefarm.errors import ConfigurationError

TOML_FILE = "imagefarm.toml"
DATA_DIR = "data"


def local_farm_url() -> str | None:
    """The URL of the farm of this machine's data folder; None if none runs."""
    try:
        return str(json.loads((data_folder() / "run" / "farm.json").read_text("utf-8"))["url"])
    except (OSError, ValueError, KeyError):
        return None


def data_folder() -> Path:
    """IMAGEFARM_DATA_DIR, otherwise `data_dir` of imagefarm.toml, otherwise `data`. Raises ConfigurationError for invalid
    TOML."""
    given = os.environ.get("IMAGEFARM_DATA_DIR")
    if given is None:
        try:
            given = str(tomllib.loads(Path(TOML_FILE).read_text("utf-8")).get("data_dir", DATA_DIR))
        except OSError:
            given = DATA_DIR
        except ValueError as error:  # invalid TOML or UTF-8
            raise ConfigurationError(f"{TOML_FILE}: {error}") from None
    return Path(given).expanduser().absolute()
