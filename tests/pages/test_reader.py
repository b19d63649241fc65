"""What an open page is sent by whoever has something for many: at once where it fits, by the stream's own thread where not."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from api.listeners import AWAY, BACK, CLOSE
from api.pages.reader import Reader, chunk_of, line_of

Line = tuple[socket.socket, socket.socket]


@pytest.fixture
def line() -> Iterator[Line]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    with ours, theirs:
        yield ours, theirs


def asleep(reader: Reader) -> tuple[threading.Thread, list[bytes]]:
    """The stream's thread, which waits for something to send, and what it was given to send."""
    taken: list[bytes] = []
    thread = threading.Thread(target=lambda: taken.append(reader.take(5)))
    thread.start()
    while not reader._sleeps:
        time.sleep(0.001)
    return thread, taken


def test_a_slow_reader_holds_the_newest_only() -> None:
    reader = Reader()
    for number in range(1000):
        reader.put("page", b"page %d;" % number)
    reader.offer(AWAY)
    reader.put("page", b"the last;")
    reader.offer(BACK)
    assert reader.take(0).split(b"the last;") == [b"event: away\ndata: {}\n\n", b"event: back\ndata: {}\n\n"]
    assert reader.take(0) == b""
    reader.offer(CLOSE)
    assert reader.closed


def test_what_fits_is_sent_at_once_and_wakes_nobody(line: Line) -> None:
    reader = Reader(line[0])
    reader.put("page", b"first", chunk_of(b"first"))  # the answer has not begun: its head comes before any part
    assert reader.take(0) == b"first"
    thread, taken = asleep(reader)
    for text in (b"second", b"third"):
        reader.put("page", text, chunk_of(text))
    assert line[1].recv(100) == b"6\r\nsecond\r\n5\r\nthird\r\n"
    assert not taken
    reader.offer(CLOSE)
    thread.join(5)
    assert taken == [b"event: close\ndata: {}\n\n"]


def test_what_does_not_fit_is_finished_by_the_streams_thread_before_anything_newer(line: Line) -> None:
    large = b"x" * 4_000_000
    reader = Reader(line[0])
    thread, taken = asleep(reader)
    reader.put("page", large, chunk_of(large))
    reader.put("page", b"newer", chunk_of(b"newer"))
    came = b""
    while len(came) < len(chunk_of(large)):
        came += line[1].recv(1_000_000)
    thread.join(5)
    assert came == chunk_of(large)
    assert taken[0] + reader.take(0) == b"newer"  # the first is the stream's to send now, as a part of its own


def test_a_full_line_takes_the_newest_only(line: Line) -> None:
    line[0].setblocking(False)
    with suppress(BlockingIOError):
        while True:
            line[0].send(b"." * 65536)
    line[0].setblocking(True)
    reader = Reader(line[0])
    thread, taken = asleep(reader)
    for text in (b"one", b"two", b"three"):
        reader.put("page", text, chunk_of(text))
    thread.join(5)
    assert b"".join([*taken, reader.take(0)]).endswith(b"three")


def test_a_page_that_was_closed_ends_its_stream(line: Line) -> None:
    reader = Reader(line[0])
    thread, _ = asleep(reader)
    line[1].close()
    reader.put("page", b"nobody", chunk_of(b"nobody"))
    thread.join(5)
    assert reader.closed


def test_only_a_plain_socket_that_takes_chunks_is_written_to(line: Line) -> None:
    given = {"gunicorn.socket": line[0], "SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_METHOD": "GET"}
    assert line_of(given) is line[0]
    for other in ({"SERVER_PROTOCOL": "HTTP/1.0"}, {"SERVER_PROTOCOL": "HTTP/2.0"}, {"REQUEST_METHOD": "HEAD"}):
        assert line_of(given | other) is None
    assert line_of({name: given[name] for name in ("SERVER_PROTOCOL", "REQUEST_METHOD")}) is None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(line[0].dup(), do_handshake_on_connect=False) as wrapped:
        assert line_of(given | {"gunicorn.socket": wrapped}) is None
