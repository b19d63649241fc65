"""What the API takes from gunicorn that gunicorn does not document, on a real gunicorn: a version that changed it fails here."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx

from imagefarm.settings import PROJECT_ROOT
from tests.waiting import until

APP = """
from api.http.gunicorn_adapter import client_socket

def app(environ, start_response):
    client = client_socket(environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"none" if client is None else str(client.getpeername() is not None).encode()]
"""
CONFIG = """
import logging
from pathlib import Path
from api.http.gunicorn_adapter import on_stop

bind, workers, threads, worker_class = ["unix:here.sock"], 1, 4, "gthread"
logger_class = "api.http.gunicorn_adapter.GunicornLog"
control_socket_disable = True

def on_starting(server):
    logging.basicConfig(filename="log.txt", level="INFO", format="%(name)s: %(message)s")

def post_worker_init(worker):
    on_stop(lambda: Path("stopping").write_text(""))
"""


def test_the_socket_the_log_and_the_end_of_a_worker(starts_process: None, tmp_path: Path) -> None:
    (tmp_path / "small_app.py").write_text(APP)
    (tmp_path / "conf.py").write_text(CONFIG)
    command = [sys.executable, "-m", "gunicorn", "-c", "conf.py", "small_app:app"]
    environment = {"PYTHONPATH": f"{PROJECT_ROOT}:{tmp_path}"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as server:
        try:
            until((tmp_path / "here.sock").exists, "gunicorn listens", 60)
            transport = httpx.HTTPTransport(uds=str(tmp_path / "here.sock"), retries=3)
            with httpx.Client(transport=transport, base_url="http://farm", timeout=30) as client:
                assert client.get("/").text == "True"
                assert client.head("/").status_code == 200
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0, "gunicorn's own handler was not called"
        finally:
            server.kill()
    assert (tmp_path / "stopping").exists()
    assert "gunicorn: " in (tmp_path / "log.txt").read_text()
