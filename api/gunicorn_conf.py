"""gunicorn as the farm runs it, embedded and in production: threads, because live pages hold one each.

`python -m gunicorn -c python:api.gunicorn_conf api.service:app`
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from imagefarm.errors import ConfigurationError
from imagefarm.gc_control import freeze_startup_objects
from imagefarm.logs import configure_logs, get_logger
from imagefarm.settings import load_settings
from imagefarm.store import Store
from imagefarm.store.migrate import check
from imagefarm.tokens import TokenReader

try:
    settings = load_settings()
except ConfigurationError as error:
    sys.exit(error.detail)

host = f"[{settings.host}]" if ":" in settings.host else settings.host
bind = [f"{host}:{settings.port}"]
workers = settings.api_processes
threads = settings.api_threads
worker_class = "gthread"
worker_connections = max(1000, 2 * settings.api_threads)
preload_app = False  # each process makes its own connections
timeout = 60  # of the process's main thread; a request may take longer
graceful_timeout = 20
keepalive = 15
accesslog = None  # api.http.request_log writes one structured line
logger_class = "api.http.gunicorn_adapter.GunicornLog"
control_socket_disable = True
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a heartbeat file; a slow disk would look like a hang

SWITCH_S = 0.0001


def on_starting(server: Any) -> None:
    """Before anything is forked: logs, and a database that fits this code."""
    configure_logs(settings, "api")
    store = Store(settings.database, pool_size=1)
    try:
        check(store)
        TokenReader(settings, store).check()
    except ConfigurationError as error:
        get_logger(__name__).error("api.refused", reason=error.detail)
        sys.exit(error.exit_code)
    finally:
        store.close()


def post_worker_init(worker: Any) -> None:
    """Let threads take turns quickly, keep full collections short, and end the live streams when the process is told to stop.

    A single submit gives up its turn a dozen times; beside another thread that works each would cost it Python's 5 ms. A
    stream would hold the process for the whole graceful time.
    """
    from api.http.context import app_context_of
    from api.http.gunicorn_adapter import on_stop
    from api.service import app

    sys.setswitchinterval(SWITCH_S)
    freeze_startup_objects()
    on_stop(app_context_of(app).events.close)
