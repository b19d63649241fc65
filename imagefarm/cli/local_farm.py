"""The farm that runs on this machine's data folder, if one does: the address that it wrote there.

The data folder is found as `imagefarm.settings` finds it. The client reads no other setting.
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
    """The address of the farm of the data folder here; None if none runs."""
    try:
        return str(json.loads((data_folder() / "run" / "farm.json").read_text("utf-8"))["url"])
    except (OSError, ValueError, KeyError):
        return None


def data_folder() -> Path:
    """IMAGEFARM_DATA_DIR, else `data_dir` of imagefarm.toml, else `data`. Raises ConfigurationError if the file is not TOML."""
    given = os.environ.get("IMAGEFARM_DATA_DIR")
    if given is None:
        try:
            given = str(tomllib.loads(Path(TOML_FILE).read_text("utf-8")).get("data_dir", DATA_DIR))
        except OSError:
            given = DATA_DIR
        except ValueError as error:  # of TOML, or of UTF-8
            raise ConfigurationError(f"{TOML_FILE}: {error}") from None
    return Path(given).expanduser().absolute()
