"""What the command line's exit codes mean."""

from __future__ import annotations

from enum import IntEnum

from imagefarm.errors import FarmError, RequestError, SetupError


class ExitCode(IntEnum):
    OK = 0
    JOB_FAILED = 1
    """A job failed or was cancelled; or the audit is broken."""
    REQUEST = 2
    """The request, or the command line, is wrong."""
    SETUP = 3
    """The farm cannot start or run as it is set up; 4 to 7 are kinds of it (see imagefarm.errors)."""
    UNREACHABLE = 8
    BUSY = 9
    KEY_REFUSED = 10
    NOT_THERE = 11
    WAITED_TOO_LONG = 12
    INTERRUPTED = 130


BY_CODE = {
    "unreachable": ExitCode.UNREACHABLE,
    "busy": ExitCode.BUSY,
    "key_refused": ExitCode.KEY_REFUSED,
    "not_there": ExitCode.NOT_THERE,
    "not_found": ExitCode.NOT_THERE,
    "refused": ExitCode.REQUEST,
    "waited_too_long": ExitCode.WAITED_TOO_LONG,
}


def exit_code_of(error: FarmError) -> int:
    """The exit code of an error that ended a command."""
    if isinstance(error, SetupError):
        return error.exit_code
    if error.code in BY_CODE:
        return BY_CODE[error.code]
    return ExitCode.REQUEST if isinstance(error, RequestError) else ExitCode.JOB_FAILED
