"""Maps an exception on the device to the failure that is stored with the job."""

from __future__ import annotations

import sys

from imagefarm.errors import RenderError
from scheduler.queue.retry import Failure, FailureClass

CLASS_OF_CODE = {
    "model_invalid": FailureClass.MODEL,
    "oom": FailureClass.RESOURCE,
    "nan_output": FailureClass.MODEL,
    "input_invalid": FailureClass.INPUT,
    "not_supported": FailureClass.INPUT,
    "device_error": FailureClass.INFRASTRUCTURE,
}
"""How each code that the engine raises is retried (see scheduler/queue/retry.py). Any other code counts as `unknown`."""


class AttemptFailed(RenderError):
    """A job cannot be rendered; carries the failure to store."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code, failure.detail)
        self.failure = failure


def failure_of(error: BaseException) -> Failure:
    """Return the failure to store for `error`; its detail is one line."""
    if isinstance(error, AttemptFailed):
        return error.failure
    if isinstance(error, RenderError):
        return Failure(CLASS_OF_CODE.get(error.code, FailureClass.UNKNOWN), error.code, error.detail)
    if is_out_of_memory(error):
        return Failure(FailureClass.RESOURCE, "oom", _line(error))
    if _is_torch_error(error, "AcceleratorError"):
        # the CUDA context is lost with it: another process, or this one after a restart, may well succeed
        return Failure(FailureClass.INFRASTRUCTURE, "device_error", _line(error))
    return Failure(FailureClass.UNKNOWN, "render_error", f"{type(error).__name__}: {_line(error)}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that memory ran out. CUDA raises a class of its own; MPS and the CPU only have a text."""
    if isinstance(error, MemoryError) or _is_torch_error(error, "OutOfMemoryError"):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def _is_torch_error(error: BaseException, name: str) -> bool:
    """Whether torch raised `error` as its class `name`. A worker on the device `fake` never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, getattr(torch, name))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
