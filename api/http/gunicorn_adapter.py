"""All uses of gunicorn beyond its documented settings and hooks.

They need gunicorn 23 or later. `tests/api/http/test_gunicorn_adapter.py` runs a real gunicorn and fails when one of them breaks.
"""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

from gunicorn.glogging import Logger


class GunicornLog(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's logger without its own handlers: its records go to the root logger, like all others."""

    def setup(self, cfg: Any) -> None:
        self.error_log = logging.getLogger("gunicorn")
        self.access_log = logging.getLogger("gunicorn.access")


def client_socket(environ: dict[str, Any]) -> socket.socket | None:
    """The unencrypted socket of an HTTP/1.1 GET request, for a caller that writes the response itself; None without one."""
    client = environ.get("gunicorn.socket")
    plain = environ.get("SERVER_PROTOCOL") == "HTTP/1.1" and environ.get("REQUEST_METHOD") == "GET"
    return client if plain and type(client) is socket.socket else None


def on_stop(end: Callable[[], None]) -> None:
    """Call `end` when this worker process receives SIGTERM, before gunicorn's own handler runs.

    Call this function in the hook `post_worker_init`: gunicorn installs its handler before that hook.
    """
    gunicorns_own = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        end()
        if callable(gunicorns_own):
            gunicorns_own(number, frame)

    signal.signal(signal.SIGTERM, stop)
