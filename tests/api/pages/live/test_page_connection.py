"""A publisher writes to open pages itself if the socket has space; otherwise the stream's own thread writes."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from api.http.gunicorn_adapter import client_socket
from api.live.event_fanout import AWAY, BACK, CLOSE
from api.pages.live.page_connection import PageConnection, http_chunk

Sockets = tuple[socket.socket, socket.socket]


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    with ours, theirs:
        yield ours, theirs


def asleep(connection: PageConnection) -> tuple[threading.Thread, list[bytes]]:
    """The stream's thread, which waits for something to send, and what it was given to send."""
    taken: list[bytes] = []
    thread = threading.Thread(target=lambda: taken.append(connection.take(5)))
    thread.start()
    while not connection._sleeps:
        time.sleep(0.001)
    return thread, taken


def test_a_slow_connection_holds_the_newest_only() -> None:
    connection = PageConnection()
    for number in range(1000):
        connection.put("page", b"page %d;" % number)
    connection.offer(AWAY)
    connection.put("page", b"the last;")
    connection.offer(BACK)
    assert connection.take(0).split(b"the last;") == [b"event: away\ndata: {}\n\n", b"event: back\ndata: {}\n\n"]
    assert connection.take(0) == b""
    connection.offer(CLOSE)
    assert connection.closed


def test_what_fits_is_sent_at_once_and_wakes_nobody(sockets: Sockets) -> None:
    connection = PageConnection(sockets[0])
    connection.put("page", b"first", http_chunk(b"first"))  # the answer has not begun: its head comes before any part
    assert connection.take(0) == b"first"
    thread, taken = asleep(connection)
    for text in (b"second", b"third"):
        connection.put("page", text, http_chunk(text))
    assert sockets[1].recv(100) == b"6\r\nsecond\r\n5\r\nthird\r\n"
    assert not taken
    connection.offer(CLOSE)
    thread.join(5)
    assert taken == [b"event: close\ndata: {}\n\n"]


def test_what_does_not_fit_is_finished_by_the_streams_thread_before_anything_newer(sockets: Sockets) -> None:
    large = b"x" * 4_000_000
    connection = PageConnection(sockets[0])
    thread, taken = asleep(connection)
    connection.put("page", large, http_chunk(large))
    connection.put("page", b"newer", http_chunk(b"newer"))
    came = b""
    while len(came) < len(http_chunk(large)):
        came += sockets[1].recv(1_000_000)
    thread.join(5)
    assert came == http_chunk(large)
    assert taken[0] + connection.take(0) == b"newer"  # the first is the stream's to send now, as a part of its own


def test_a_full_socket_takes_the_newest_only(sockets: Sockets) -> None:
    sockets[0].setblocking(False)
    with suppress(BlockingIOError):
        while True:
            sockets[0].send(b"." * 65536)
    sockets[0].setblocking(True)
    connection = PageConnection(sockets[0])
    thread, taken = asleep(connection)
    for text in (b"one", b"two", b"three"):
        connection.put("page", text, http_chunk(text))
    thread.join(5)
    assert b"".join([*taken, connection.take(0)]).endswith(b"three")


def test_a_page_that_was_closed_ends_its_stream(sockets: Sockets) -> None:
    connection = PageConnection(sockets[0])
    thread, _ = asleep(connection)
    sockets[1].close()
    connection.put("page", b"nobody", http_chunk(b"nobody"))
    thread.join(5)
    assert connection.closed


def test_only_a_plain_socket_that_takes_chunks_is_written_to(sockets: Sockets) -> None:
    given = {"gunicorn.socket": sockets[0], "SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_METHOD": "GET"}
    assert client_socket(given) is sockets[0]
    for other in ({"SERVER_PROTOCOL": "HTTP/1.0"}, {"SERVER_PROTOCOL": "HTTP/2.0"}, {"REQUEST_METHOD": "HEAD"}):
        assert client_socket(given | other) is None
    assert client_socket({name: given[name] for name in ("SERVER_PROTOCOL", "REQUEST_METHOD")}) is None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(sockets[0].dup(), do_handshake_on_connect=False) as wrapped:
        assert client_socket(given | {"gunicorn.socket": wrapped}) is None
