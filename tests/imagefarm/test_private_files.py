"""The data folder and the database are closed to other users."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from imagefarm.private_files import make_private_file, make_private_folder
from imagefarm.store import Store
from imagefarm.store.migrate import migrate
from imagefarm.supervisor.lock import DataFolderLock


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_data_folder_is_private(tmp_path: Path) -> None:
    lock = DataFolderLock(tmp_path / "farm" / "data")
    lock.acquire()
    lock.release()
    assert mode(tmp_path / "farm" / "data") == 0o700


def test_a_folder_that_others_can_open_is_reported_and_kept(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    with capture_logs() as lines:
        make_private_folder(tmp_path / "shared")
    assert [(line["event"], line["remedy"]) for line in lines] == [("folder.open_to_others", f"chmod 700 {tmp_path / 'shared'}")]
    assert mode(tmp_path / "shared") == 0o755


def test_the_database_and_its_log_are_private(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'data' / 'farm.db'}")
    migrate(store)
    assert mode(tmp_path / "data") == 0o700
    assert {file.name: mode(file) for file in (tmp_path / "data").iterdir()} == {
        "farm.db": 0o600,
        "farm.db-wal": 0o600,
        "farm.db-shm": 0o600,
    }
    store.close()


def test_an_existing_database_becomes_private(tmp_path: Path) -> None:
    path = tmp_path / "farm.db"
    path.touch(mode=0o644)
    store = Store(f"sqlite:///{path}")
    migrate(store)
    store.close()
    assert mode(path) == 0o600


def test_an_existing_file_is_never_opened(starts_process: None, tmp_path: Path) -> None:
    """POSIX drops all locks of a process on a file when the process closes any descriptor of it; SQLite relies on them."""
    path = tmp_path / "farm.db"
    make_private_file(path)
    with path.open("r+b") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        make_private_file(path)
        other = "import fcntl, sys\nfcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        tried = subprocess.run([sys.executable, "-c", other, str(path)], capture_output=True, text=True, check=False)
    assert "BlockingIOError" in tried.stderr, "the lock is gone"
