"""The identity of this worker: one incarnation, new every time its child process starts."""

from __future__ import annotations

import os
import platform
import socket
from importlib.metadata import PackageNotFoundError, version

from imagefarm.catalogue import Catalogue
from imagefarm.errors import ConfigurationError
from imagefarm.ids import is_id, new_id
from imagefarm.settings import Settings
from imagefarm.version import __version__
from scheduler.queue.workers import WorkerIdentity

INCARNATION = "FARM_WORKER_INCARNATION"
"""Environment variable with the id that the parent gives to its next child. The parent can therefore requeue the jobs of that
child whenever it dies."""
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "numpy", "pillow", "isal", "celery")


def served_models(settings: Settings, catalogue: Catalogue) -> list[str]:
    """The models that this worker serves. Raises ConfigurationError naming a model that the catalogue does not have."""
    if "*" in settings.worker_models:
        return catalogue.names()
    unknown = sorted(set(settings.worker_models) - set(catalogue.names()))
    if unknown:
        raise ConfigurationError(f"setting worker_models: no model {unknown[0]!r}; known: {', '.join(catalogue.names())}")
    return list(settings.worker_models)


def library_versions() -> dict[str, str]:
    """Versions of the libraries that affect pixels, for the audit; a library that is not installed is absent."""
    found = {"imagefarm": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def next_incarnation() -> str:
    """Create the id of the next child and store it in the environment for that child. Called in the parent."""
    os.environ[INCARNATION] = new_id("wrk")
    return os.environ[INCARNATION]


def make_identity(settings: Settings, catalogue: Catalogue, *, device: str, node: str) -> WorkerIdentity:
    """Describe this process. `node` is Celery's name of the worker, used if the settings have none."""
    given = os.environ.get(INCARNATION, "")
    return WorkerIdentity(
        id=given if is_id(given, "wrk") else new_id("wrk"),
        name=settings.worker_name or node,
        host=socket.gethostname(),
        pid=os.getpid(),
        device=device,
        version=__version__,
        serves=served_models(settings, catalogue),
        facts={
            "versions": library_versions(),
            "torch_threads": settings.torch_threads,
            "platform": platform.platform(),
            **_device_facts(device),
        },
    )


def _device_facts(device: str) -> dict[str, object]:
    """Facts about the device. Call this in a child only, because it initialises CUDA."""
    if not device.startswith("cuda"):
        return {"cores": os.cpu_count()}
    import torch

    properties = torch.cuda.get_device_properties(torch.device(device))
    return {
        "device_name": properties.name,
        "device_bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
    }
