"""The worker as a service: `celery -A worker.service worker -c 1 -P prefork --without-gossip --without-mingle -n NAME@%h`.

The parent consumes the tickets of the lanes in `worker_models` (no `-Q` is needed) and never imports torch. Its one child, a
fresh interpreter, uses the device. SIGTERM drains: the worker claims no further jobs, finishes those that end soon, and requeues
the rest.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, NoReturn

from celery.signals import (
    setup_logging,
    worker_before_create_process,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
    worker_shutdown,
)
from kombu.entity import Queue
from sqlalchemy.exc import SQLAlchemyError

from imagefarm.catalogue import Catalogue
from imagefarm.errors import ConfigurationError, SchemaMismatch
from imagefarm.logs import configure_logs, get_logger
from imagefarm.settings import load_settings
from imagefarm.store import Store
from imagefarm.store.migrate import check
from scheduler.celery_app import MAX_RUNNING_SET_S, RENDER_TASK, lane_queue, make_celery
from worker.child_monitor import ChildMonitor, ChildMonitorStep
from worker.process.identity import served_models
from worker.process.liveness import LivenessMonitor
from worker.process.step_deadline import MAX_LOAD_S, MAX_SLICES

RESTART_PAUSE_S = 5.0
"""A child that cannot start waits this time, in seconds, before it ends and another child tries."""


def give_up(error: ConfigurationError) -> NoReturn:
    """Print a configuration error as one line and exit with its exit code."""
    print(f"imagefarm worker: {error.detail}", file=sys.stderr)
    raise SystemExit(error.exit_code)


try:
    settings = load_settings()
    catalogue = Catalogue.read(settings.catalogue_file)
    serves = served_models(settings, catalogue)
    app = make_celery(settings, catalogue)
except ConfigurationError as error:
    give_up(error)

# OpenMP, MKL and the Hugging Face client read these when they are loaded, which is later, in the child
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = str(settings.torch_threads)
# keeps compiled kernels between starts
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(settings.data_dir / "cache" / "compiled"))
os.environ.update(HF_HUB_OFFLINE="1", DIFFUSERS_DISABLE_REMOTE_CODE="1", TOKENIZERS_PARALLELISM="false")

log = get_logger(__name__)
app.conf.update(
    task_queues=[Queue(lane_queue(name)) for name in serves],
    # the child monitors itself (see worker.leases.lease_keeper); this kills a child that cannot
    task_time_limit=MAX_SLICES * settings.ticket_slice_s + MAX_RUNNING_SET_S + 60,
    worker_proc_alive_timeout=MAX_LOAD_S,
)
child_monitor = ChildMonitor(app, settings, serves, "")
liveness_monitor = LivenessMonitor()
ChildMonitorStep.child_monitor, ChildMonitorStep.liveness_monitor = child_monitor, liveness_monitor
app.steps["worker"].add(ChildMonitorStep)


class ThisProcess:
    """State of this process once it is a child."""

    render_process: Any = None


@setup_logging.connect
def _logs(**_: Any) -> None:
    configure_logs(settings, "worker")


@worker_init.connect
def _worker_starts(**_: Any) -> None:
    store = Store(settings.database, pool_size=1)
    try:
        check(store)
    except SchemaMismatch as error:
        give_up(error)
    except SQLAlchemyError as error:
        log.warning("worker.database_unavailable", error=str(error)[:200])  # the child waits for the database
    finally:
        store.close()


@worker_before_create_process.connect
def _child_is_made(**_: Any) -> None:
    child_monitor.child_starts()
    liveness_monitor.child_starts()


@worker_process_init.connect
def _child_starts(sender: str, **_: Any) -> None:
    from worker.render_process import RenderProcess

    configure_logs(settings, "worker")
    try:
        ThisProcess.render_process = RenderProcess(settings, catalogue, app, node=sender)
        ThisProcess.render_process.start()
    except Exception:
        # Celery would log this and keep a child that cannot work; the parent starts another one
        log.exception("worker.not_started", again_in_s=RESTART_PAUSE_S)
        time.sleep(RESTART_PAUSE_S)
        os._exit(1)


@worker_process_shutdown.connect
def _child_ends(**_: Any) -> None:
    if ThisProcess.render_process is not None:
        ThisProcess.render_process.stop("it was stopped")


@worker_shutdown.connect
def _worker_ends(**_: Any) -> None:
    child_monitor.stop()


@app.task(name=RENDER_TASK)
def render(lane: str) -> None:
    """Handle a ticket, which announces work in this lane. It may claim jobs of any lane that the worker serves."""
    ThisProcess.render_process.render(lane)
