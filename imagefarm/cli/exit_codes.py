"""What the command line's exit codes mean: the one table, of which docs/cli.md and --help are written."""

from __future__ import annotations

from enum import IntEnum

from imagefarm.errors import FarmError, RequestError, SetupError


class ExitCode(IntEnum):
    OK = 0
    JOB_FAILED = 1
    REQUEST = 2
    SETUP = 3
    DATA_FOLDER_BUSY = 4
    PORT_IN_USE = 5
    NO_REDIS = 6
    DATABASE = 7
    UNREACHABLE = 8
    BUSY = 9
    KEY_REFUSED = 10
    NOT_THERE = 11
    WAITED_TOO_LONG = 12
    INTERRUPTED = 130


MEANING = {
    ExitCode.OK: "done",
    ExitCode.JOB_FAILED: "a job failed or was cancelled, a table has bad rows, or the audit is broken",
    ExitCode.REQUEST: "the request or the command line is wrong",
    ExitCode.SETUP: "the farm cannot start or run as it is set up, or a file of settings is wrong",
    ExitCode.DATA_FOLDER_BUSY: "the data folder is in use by another farm",
    ExitCode.PORT_IN_USE: "the port is in use",
    ExitCode.NO_REDIS: "no redis-server is found",
    ExitCode.DATABASE: "the database does not fit this version",
    ExitCode.UNREACHABLE: "no farm answers",
    ExitCode.BUSY: "the farm is busy, or a limit is reached: come back later",
    ExitCode.KEY_REFUSED: "the key is missing, wrong, or may not do this",
    ExitCode.NOT_THERE: "there is no such thing",
    ExitCode.WAITED_TOO_LONG: "waited too long; the job goes on",
    ExitCode.INTERRUPTED: "interrupted; what was submitted goes on",
}

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
