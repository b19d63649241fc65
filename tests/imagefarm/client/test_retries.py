"""The client on a bad day: a farm that is busy, restarts, or breaks off."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from imagefarm import Client
from imagefarm.client import BusyError, ConnectionFailedError

JOB = {"id": "job_1", "state": "queued", "recipe": {}, "recipe_hash": "", "count": 1, "attempt": 0} | {
    "created_at": "2026-01-01T00:00:00Z"
}
Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """A real HTTP server that follows a script and records the requests."""

    def __init__(self) -> None:
        self.script: list[Answer] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.asked.append((self.command, dict(self.headers)))
                outer.script.pop(0)(self)

            do_GET = do_POST = _any

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"


def says(status: int, body: dict[str, object], **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        data = json.dumps(body).encode()
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(data)

    return answer


def breaks_off(request: BaseHTTPRequestHandler) -> None:
    request.connection.shutdown(socket.SHUT_RDWR)
    request.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_a_busy_farm_is_asked_again_when_it_says(server: Server) -> None:
    server.script = [says(429, {"detail": "full"}, Retry_After="1"), says(202, JOB)]
    began = time.monotonic()
    with Client(server.url) as client:
        assert client.jobs.submit("a mug").id == "job_1"
    assert 1.0 <= time.monotonic() - began < 5
    keys = {headers["Idempotency-Key"] for _, headers in server.asked}
    assert len(keys) == 1, "a repeated submit must carry the same key"


def test_retries_end(server: Server) -> None:
    server.script = [says(503, {"detail": "away", "retry_after": 0.01}, Retry_After="0.01")] * 3
    with Client(server.url, retries=2) as client, pytest.raises(BusyError, match="away") as busy:
        client.jobs.get("job_1")
    assert busy.value.retry_after == 0.01
    assert len(server.asked) == 3


def test_a_submit_whose_answer_was_lost_is_repeated_with_its_key(server: Server) -> None:
    server.script = [breaks_off, says(202, JOB)]
    with Client(server.url) as client:
        client.jobs.submit("a mug")
    assert server.asked[0][1]["Idempotency-Key"] == server.asked[1][1]["Idempotency-Key"]


def test_what_could_be_done_twice_is_not_repeated(server: Server) -> None:
    server.script = [breaks_off]
    with Client(server.url) as client, pytest.raises(ConnectionFailedError):
        client.jobs.retry("job_1")
    assert len(server.asked) == 1


def test_no_farm_says_where_it_looked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        Client(f"http://127.0.0.1:{port}", retries=0) as client,
        pytest.raises(ConnectionFailedError, match=rf":{port}.*is the farm running"),
    ):
        client.models.list()


def test_a_mistake_of_the_farm_is_not_repeated(server: Server) -> None:
    server.script = [says(500, {"detail": "it broke"})]
    with Client(server.url) as client, pytest.raises(Exception, match="it broke"):
        client.jobs.get("job_1")
    assert len(server.asked) == 1
