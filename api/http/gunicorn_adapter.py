"""What the API needs of gunicorn beyond its documented settings and hooks: all of it is used here.

gunicorn 23 and later. `tests/api/http/test_gunicorn_adapter.py` runs a real gunicorn and fails when it changes.
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
    """gunicorn's logger without handlers of its own: what it logs goes to the root's, as everything else does."""

    def setup(self, cfg: Any) -> None:
        self.error_log = logging.getLogger("gunicorn")
        self.access_log = logging.getLogger("gunicorn.access")


def client_socket(environ: dict[str, Any]) -> socket.socket | None:
    """The socket of a request whose answer is sent in chunks as they are, if the server gives it away."""
    client = environ.get("gunicorn.socket")
    plain = environ.get("SERVER_PROTOCOL") == "HTTP/1.1" and environ.get("REQUEST_METHOD") == "GET"
    return client if plain and type(client) is socket.socket else None


def on_stop(end: Callable[[], None]) -> None:
    """Have `end` called when this worker process gets SIGTERM, before gunicorn's own handler, which stays.

    Call it in the hook `post_worker_init`: gunicorn installs its handler before that.
    """
    gunicorns_own = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        end()
        if callable(gunicorns_own):
            gunicorns_own(number, frame)

    signal.signal(signal.SIGTERM, stop)
