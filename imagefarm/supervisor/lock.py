"""One farm per data folder: an advisory lock, which the kernel releases when its process ends for any reason."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from imagefarm.errors import ConfigurationError, DataFolderBusy
from imagefarm.private_files import make_private_folder

LOCK_FILE = "farm.lock"


class DataFolderLock:
    """Holds a data folder until `release`, or until this process ends."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._fd: int | None = None

    def acquire(self) -> None:
        """Create the folder if necessary, and lock it.

        Raises DataFolderBusy if another farm has locked it, ConfigurationError if it is not writable.
        """
        try:
            make_private_folder(self.data_dir)
            fd = os.open(self.data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"cannot write to the data folder {self.data_dir}: {error.strerror}; choose another with --data"
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(fd, 20).decode(errors="replace").strip()
            os.close(fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise ConfigurationError(f"cannot lock the data folder {self.data_dir}: {error.strerror}") from None
            raise DataFolderBusy(
                f"the data folder {self.data_dir} is in use by another imagefarm (process {holder or 'unknown'}); "
                "stop that one, or choose another folder with --data"
            ) from None
        os.truncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd

    def release(self) -> None:
        """Release the folder. Does nothing if it is not locked."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
