"""gunicorn's own messages, sent through the farm's structured log."""

from __future__ import annotations

import logging
from typing import Any


class GunicornLog:
    """What gunicorn asks of a logger, over the logger `gunicorn` of the standard library."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.error_log = logging.getLogger("gunicorn")
        self.access_log = logging.getLogger("gunicorn.access")
