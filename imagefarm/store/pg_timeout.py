"""A PostgreSQL connection with a response timeout.

The kernel notices a host that vanished (keepalives, tcp_user_timeout). It does not notice a server or proxy that acknowledges a
request and never responds; libpq and its thread would wait forever.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg

RESPONSE_TIMEOUT_S = 30.0
"""Seconds. No statement of a running farm takes this long. Migrations have no timeout."""


class TimeoutConnection(psycopg.Connection[Any]):
    """Counts as lost when one exchange with the server takes longer than `RESPONSE_TIMEOUT_S`, unless `no_timeout` is set."""

    no_timeout = False

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """psycopg's `wait`, with a timeout."""
        if timeout is not None or self.no_timeout:
            return super().wait(gen, interval, timeout)
        began = time.monotonic()
        try:
            return super().wait(gen, interval, RESPONSE_TIMEOUT_S)
        except psycopg.OperationalError as error:
            if time.monotonic() - began < RESPONSE_TIMEOUT_S:
                raise
            self.pgconn.finish()  # a rollback would wait for the timeout again
            raise psycopg.OperationalError(f"the connection is lost: no response for {RESPONSE_TIMEOUT_S:.0f} s") from error
