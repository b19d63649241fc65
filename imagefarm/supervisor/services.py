"""The farm's services as command lines, for the embedded farm, compose, and `imagefarm api|worker|scheduler`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field

from imagefarm.settings import Settings

# -P: a file named celery.py in the current folder must not be imported
PYTHON = (sys.executable, "-P", "-m")
GRACE_S = 15.0
"""Seconds that a service other than a worker may take to stop."""
DRAIN_S = 45.0
"""Seconds that a worker may take to stop: it finishes jobs for up to 20 s and releases the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One process of the farm: its name, its command line, and the seconds it may take to stop after SIGTERM."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    grace_s: float = GRACE_S


def api() -> Service:
    """The REST API and the pages."""
    return Service(name="api", command=(*PYTHON, "gunicorn", "-c", "python:api.gunicorn_conf", "api.service:app"))


def sweep() -> Service:
    """The worker that runs the sweep, and webhooks, uploads and cleanup in threads beside it."""
    queues = ("-Q", "sweep,maintenance", "-P", "threads")
    options = ("-n", "sweep@%h", "--without-gossip", "--without-mingle", "--without-heartbeat")
    return Service(name="sweep", command=(*PYTHON, "celery", "-A", "scheduler.service", "worker", *queues, *options))


def beat() -> Service:
    """The clock that sends a sweep every few seconds."""
    # no pid file: Celery would create celerybeat.pid in the current folder, and refuse to start beside an old one
    return Service(name="beat", command=(*PYTHON, "celery", "-A", "scheduler.service", "beat", "--pidfile="))


def worker(settings: Settings, name: str) -> Service:
    """A render worker: Celery's parent process handles control messages while one child process uses the device."""
    options = ("-c", "1", "-P", "prefork", "--without-gossip", "--without-mingle", "-n", f"{name}@%h")
    return Service(
        name=name,
        command=(*PYTHON, "celery", "-A", "worker.service", "worker", *options),
        environment={"IMAGEFARM_WORKER_NAME": name, "OMP_NUM_THREADS": str(settings.torch_threads)},
        grace_s=DRAIN_S,
    )


def environment(settings: Settings, service: Service) -> dict[str, str]:
    """The environment of the service's process: this process's, the settings in force, and the service's own variables."""
    return {
        **os.environ,
        **settings.environment(),
        "IMAGEFARM_MODELS_FILE": str(settings.catalogue_file),
        "PYTHONUNBUFFERED": "1",
        **service.environment,
    }
