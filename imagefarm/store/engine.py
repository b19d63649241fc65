"""The store: one writer and many readers on SQLite, a pool on PostgreSQL, and the database's own clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Double, Engine, create_engine, event, make_url, select
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType

from imagefarm.logs import get_logger
from imagefarm.private_files import make_private_file, make_private_folder
from imagefarm.store.compiled import autocommit

log = get_logger(__name__)
T = TypeVar("T")

COMMITTED_EVENTS = "committed_events"
"""Key in `session.info` of the audit events that the listener receives after the commit."""
CONNECTION = "connection"
"""Key in `session.info` of the connection that `connection_of` found."""
BUSY_TIMEOUT_S = 30
PING_AFTER_S = 1.0
"""Seconds. A PostgreSQL connection used this recently is not pinged, because a ping costs a round trip."""
CHECKPOINT_PAGES = 16_000
"""Length of SQLite's WAL, 64 MB, at which a commit checkpoints it. The sweep checkpoints long before that."""
POSTGRESQL_LINK: dict[str, Any] = {
    "connect_timeout": 5,
    # the client notices here a host that vanished without closing its connections ...
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    # ... and the server notices it here, where the host may hold locks. A process that is frozen inside a transaction loses its
    # locks the same way; its other threads, which wait for the same locks, have timed out by then
    "options": "-c idle_in_transaction_session_timeout=6s -c lock_timeout=5s"
    " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3",
}
DATABASE_AWAY = (DBAPIError, PoolTimeout)
"""Errors that a statement raises while the database is unavailable or has no connection left."""
TRANSIENT_SQLSTATES = frozenset(
    {"25P03", "40001", "40P01", "55P03", "57P01", "57P02", "57P03", "08000", "08003", "08006", "08001"}
)


def lower(text: str | None) -> str | None:
    """Lower case for every script, because SQLite's own `lower` handles only ASCII: a search for \u00e4pfel finds
    \u00c4pfel."""
    return text.lower() if isinstance(text, str) else text


class db_now(FunctionElement[float]):
    """SQL expression of the database's clock: seconds since 1970, UTC. Leases and limits never use a process's own clock."""

    type = Double()
    inherit_cache = True


def database_time(session: Session) -> float:
    """The time by the database's clock."""
    return session.scalar(select(db_now())) or 0.0


def _connect_with_timeout(_dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
    from imagefarm.store.pg_timeout import TimeoutConnection  # psycopg is installed only where PostgreSQL is used

    return TimeoutConnection.connect(*arguments, **options)


@compiles(db_now, "sqlite")
def _sqlite_now(_element: Any, _compiler: Any, **_: Any) -> str:
    # unixepoch('subsec') needs SQLite 3.42; julianday has millisecond precision everywhere
    return "round((julianday('now') - 2440587.5) * 86400.0, 3)"


@compiles(db_now, "postgresql")
def _postgresql_now(_element: Any, _compiler: Any, **_: Any) -> str:
    return "(round(extract(epoch from clock_timestamp()), 3)::double precision)"


class _Likelihood(FunctionElement[bool]):
    """A condition with its selectivity: a hint for SQLite, ignored on PostgreSQL, which has statistics."""

    type = NullType()  # type: ignore[assignment]  # SQLAlchemy would write a truth as "= 1", which SQLite's indexes do not know
    inherit_cache = True
    part: str


@compiles(_Likelihood, "sqlite")
def _sqlite_likelihood(element: Any, compiler: Any, **_: Any) -> str:
    return f"likelihood({compiler.process(element.clauses)}, {element.part})"


@compiles(_Likelihood, "postgresql")
def _postgresql_likelihood(element: Any, compiler: Any, **_: Any) -> str:
    return f"({compiler.process(element.clauses)})"


class unlikely(_Likelihood):
    """Hint that few rows meet the condition. SQLite prefers an index with an equality over one with a range, and would scan all
    waiting jobs for the few that have expired; with the hint it takes the range.
    """

    inherit_cache = True
    part = "0.000001"


class likely(_Likelihood):
    """Hint that many rows meet the condition. SQLite takes any index on an IS NULL column, however many rows are null."""

    inherit_cache = True
    part = "0.999999"


class Store:
    """Access to the database. `write()` commits at the end of its block or rolls back; `read()` never writes."""

    def __init__(self, url: str, *, pool_size: int = 20) -> None:
        self.url = make_url(url)
        self.listener: Callable[[list[dict[str, Any]]], None] | None = None
        """Receives the audit events of each transaction after its commit. It must neither block nor raise."""
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            if self.url.database and not Path(self.url.database).parent.exists():
                make_private_folder(Path(self.url.database).parent)
            # one writer connection: transactions queue in this process instead of waiting for the file's lock
            self.writer = self._sqlite_engine(1, "BEGIN IMMEDIATE")
            self.reader = self._sqlite_engine(pool_size, "BEGIN")
        else:
            if self.url.drivername == "postgresql":
                self.url = self.url.set(drivername="postgresql+psycopg")
            self.writer = self.reader = create_engine(
                self.url,
                pool_size=pool_size,
                max_overflow=10,
                pool_timeout=10,
                connect_args={key: value for key, value in POSTGRESQL_LINK.items() if key not in self.url.query},
            )
            event.listen(self.writer, "do_connect", _connect_with_timeout)
            _ping_idle(self.writer)
        self._write = sessionmaker(self.writer, expire_on_commit=False)
        self._read = sessionmaker(self.reader, expire_on_commit=False)

    def _sqlite_engine(self, size: int, begin: str) -> Engine:
        engine = create_engine(
            self.url,
            pool_size=size,
            max_overflow=0,
            pool_timeout=BUSY_TIMEOUT_S,
            connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        )

        @event.listens_for(engine, "do_connect")
        def _keep_private(_dialect: Any, _record: Any, _arguments: Any, _options: Any) -> None:
            if self.url.database and self.url.database != ":memory:" and not self.url.database.startswith("file:"):
                make_private_file(Path(self.url.database))  # SQLite gives its log the same mode

        @event.listens_for(engine, "connect")
        def _connect(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # transactions begin where SQLAlchemy says, not where sqlite3 guesses
            cursor = connection.cursor()
            connection.create_function("lower", 1, lower, deterministic=True)
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")  # a 2xx is durable
            cursor.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.execute("PRAGMA cache_size=-16000")
            cursor.close()

        @event.listens_for(engine, "begin")
        def _begin(connection: Any) -> None:
            level = "FULL" if connection.get_execution_options().get("durable", True) else "NORMAL"
            if connection.info.get("synchronous", "FULL") != level:
                connection.connection.driver_connection.execute(f"PRAGMA synchronous={level}")
                connection.info["synchronous"] = level
            connection.exec_driver_sql(begin)

        return engine

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Session]:
        """A writing transaction: commits when the block ends, rolls back when it raises.

        Not `durable`: on SQLite the commit does not wait for the disk. It survives the death of any process, but a power failure
        may
        undo it together with all later commits. PostgreSQL always waits.
        """
        with self._write() as session:
            with session.begin():
                if self.is_sqlite and not durable:
                    session.connection(execution_options={"durable": False})
                yield session
            events = session.info.pop(COMMITTED_EVENTS, [])
        if events and self.listener is not None:
            self.listener(events)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A read-only transaction."""
        with self._read() as session, session.begin():
            yield session

    @contextmanager
    def autocommit_read(self) -> Iterator[Connection]:
        """A connection for one read-only `CompiledStatement`, without a transaction."""
        with self.reader.connect() as sql, autocommit(sql):
            yield sql

    def run_with_retry(self, work: Callable[[Session], T], *, timeout_s: float = 60.0, durable: bool = True) -> T:
        """Run `work` in a write transaction. After a deadlock, a lock or a lost connection run it again, for up to `timeout_s`.

        Use it only for work that is safe to repeat: the response to a commit can be lost after the commit. Fenced writes are
        safe.
        """
        deadline = time.monotonic() + timeout_s
        pause = 0.05
        while True:
            try:
                with self.write(durable=durable) as session:
                    return work(session)
            except DBAPIError as error:
                if not is_transient(error) or time.monotonic() + pause > deadline:
                    raise
                log.warning("store.retry", error=str(error.orig)[:200], pause_s=pause)
                time.sleep(pause)
                pause = min(pause * 2, 2.0)

    def checkpoint(self) -> None:
        """Checkpoint SQLite's WAL while readers and writers continue. Does nothing on PostgreSQL.

        Otherwise the commit that makes the WAL too long has to checkpoint it, and waits for the disk.
        """
        if self.is_sqlite:
            with self.reader.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")

    def now(self) -> float:
        """The database's clock."""
        with self.read() as session:
            return database_time(session)

    def close(self) -> None:
        """Close every connection."""
        self.writer.dispose()
        self.reader.dispose()


def _ping_idle(engine: Engine) -> None:
    """Ping a connection that was idle for a while before it is used."""

    @event.listens_for(engine, "checkin")
    def _checkin(_connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _checkout(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("used", 0.0) < PING_AFTER_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error


def connection_of(session: Session) -> Connection:
    """The connection of one of the store's sessions.

    A session looks its connection up at every call, which takes longer than a compiled statement. The store's sessions live for
    one
    transaction, so their connection never changes.
    """
    found: Connection | None = session.info.get(CONNECTION)
    if found is None:
        found = session.info[CONNECTION] = session.connection()
    return found


def is_transient(error: DBAPIError) -> bool:
    """True if the same work may succeed a moment later: lost connection, deadlock, lock, server restart."""
    if error.connection_invalidated:
        return True
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is not None:
        return sqlstate in TRANSIENT_SQLSTATES
    message = str(error.orig).lower()
    return any(
        words in message
        for words in ("database is locked", "database table is locked", "connection", "server closed", "disk i/o")
    )
