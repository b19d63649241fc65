"""gunicorn's configuration, for the embedded farm and for production. It uses threads because each live page holds one.

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
preload_app = False  # each process opens its own connections
timeout = 60  # seconds without a heartbeat of the process's main thread; a request may take longer
graceful_timeout = 20
keepalive = 15
accesslog = None  # api.http.request_log writes one structured line per request
logger_class = "api.http.gunicorn_adapter.GunicornLog"
control_socket_disable = True
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a heartbeat file; a slow disk would look like a hang

SWITCH_S = 0.0001


def on_starting(server: Any) -> None:
    """Before any fork: configure the logs, then check the database schema and the token settings."""
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
    """Shorten Python's thread switch interval, freeze startup objects for the garbage collector, and end live streams on SIGTERM.

    One submit releases the GIL about a dozen times. Beside a busy thread each release would cost it Python's default interval of
    5 ms. An open stream would keep a stopping process alive for all of `graceful_timeout`.
    """
    from api.http.context import app_context_of
    from api.http.gunicorn_adapter import on_stop
    from api.service import app

    sys.setswitchinterval(SWITCH_S)
    freeze_startup_objects()
    on_stop(app_context_of(app).events.close)
