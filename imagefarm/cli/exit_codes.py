"""The command line's exit codes. docs/cli/README.md and --help are generated from this table."""

from __future__ import annotations

from enum import IntEnum

from imagefarm.errors import ConfigurationError, FarmError, RequestError


class ExitCode(IntEnum):
    OK = 0
    JOB_FAILED = 1
    REQUEST = 2
    CONFIGURATION = 3
    DATA_FOLDER_BUSY = 4
    PORT_IN_USE = 5
    NO_REDIS = 6
    SCHEMA_MISMATCH = 7
    CONNECTION_FAILED = 8
    BUSY = 9
    AUTH_FAILED = 10
    NOT_FOUND = 11
    WAIT_TIMEOUT = 12
    INTERRUPTED = 130


MEANING = {
    ExitCode.OK: "done",
    ExitCode.JOB_FAILED: "a job failed or was cancelled, a table has bad rows, or the audit is broken",
    ExitCode.REQUEST: "the request or the command line is wrong",
    ExitCode.CONFIGURATION: "the farm cannot start or run as it is set up, or a file of settings is wrong",
    ExitCode.DATA_FOLDER_BUSY: "the data folder is in use by another farm",
    ExitCode.PORT_IN_USE: "the port is in use",
    ExitCode.NO_REDIS: "no redis-server is found",
    ExitCode.SCHEMA_MISMATCH: "the database does not fit this version",
    ExitCode.CONNECTION_FAILED: "no farm answers",
    ExitCode.BUSY: "the farm is busy, or a limit is reached: come back later",
    ExitCode.AUTH_FAILED: "the key is missing, wrong, or may not do this",
    ExitCode.NOT_FOUND: "there is no such thing",
    ExitCode.WAIT_TIMEOUT: "waited too long; the job continues",
    ExitCode.INTERRUPTED: "interrupted; submitted jobs continue",
}

BY_CODE = {
    "connection_failed": ExitCode.CONNECTION_FAILED,
    "busy": ExitCode.BUSY,
    "auth_failed": ExitCode.AUTH_FAILED,
    "not_found": ExitCode.NOT_FOUND,
    "refused": ExitCode.REQUEST,
    "wait_timeout": ExitCode.WAIT_TIMEOUT,
}


def exit_code_of(error: FarmError) -> int:
    """The exit code of an error that ended a command."""
    if isinstance(error, ConfigurationError):
        return error.exit_code
    if error.code in BY_CODE:
        return BY_CODE[error.code]
    return ExitCode.REQUEST if isinstance(error, RequestError) else ExitCode.JOB_FAILED
