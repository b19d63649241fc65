"""A connection to PostgreSQL that does not wait for ever for a server that says nothing.

The kernel notices a host that vanished (keepalives, tcp_user_timeout). It does not notice a server or a proxy that takes what
is sent, acknowledges it and never answers; then libpq waits without end, and the thread with it.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg

RESPONSE_TIMEOUT_S = 30.0
"""No statement of a running farm takes nearly so long; a migration may, and waits without end."""


class TimeoutConnection(psycopg.Connection[Any]):
    """Lost when one exchange with the server takes longer than `RESPONSE_TIMEOUT_S`, unless `no_timeout` is set."""

    no_timeout = False

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg's own, with an end."""
        if timeout is not None or self.no_timeout:
            return super().wait(gen, interval, timeout)
        began = time.monotonic()
        try:
            return super().wait(gen, interval, RESPONSE_TIMEOUT_S)
        except psycopg.OperationalError as error:
            if time.monotonic() - began < RESPONSE_TIMEOUT_S:
                raise
            self.pgconn.finish()  # to ask it to roll back would take as long again
            raise psycopg.OperationalError(f"the connection is lost: no answer for {RESPONSE_TIMEOUT_S:.0f} s") from error
