"""Where the browser tests find Chromium, and what a run without it says."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROME_APP = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
MISSING = "no Chromium found; `make browser` installs it"


def find_chromium() -> str | None:
    """The path of Chromium or Chrome, None without one."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return found or (str(CHROME_APP) if CHROME_APP.exists() else None)


def require_chromium() -> str:
    """The path of Chromium. Without it the test is skipped, and fails where CI is set: there a skip would go unnoticed."""
    found = find_chromium()
    if found is not None:
        return found
    if os.environ.get("CI"):
        pytest.fail(MISSING)
    pytest.skip(MISSING)


def skipped_line(skipped: list[Any]) -> str:
    """The last line of a run whose reports `skipped` contain browser tests; empty if all of them had Chromium."""
    number = sum(MISSING in str(report.longrepr) for report in skipped)
    return f"{number} browser tests were skipped: {MISSING}" if number else ""
