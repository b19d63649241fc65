"""One open page: the texts still to be sent to it, and its socket.

A stream holds a thread of the server, which sleeps. Waking five hundred threads, each to write a few kilobytes, would be slow. So
the sender writes to each socket itself as far as the socket accepts it, and leaves only the rest to the stream's own thread.
"""

from __future__ import annotations

import socket
import threading

from api.http.sse import event_text
from api.live.event_fanout import CLOSE, Event, Subscription


class PageConnection(Subscription):
    """An open page. It keeps only the newest text of each kind, so a slow connection skips some and nothing piles up."""

    def __init__(self, client: socket.socket | None = None) -> None:
        super().__init__(lambda _: False)
        self.tag = ""
        self._socket = client
        self._texts: dict[str, bytes] = {}
        self._rest: memoryview | None = None
        self._told = threading.Condition(threading.Lock())
        self._sleeps = False
        """The stream's thread has sent everything; until more arrives, other threads may write to the socket."""

    def offer(self, event: Event) -> None:
        """Note that Redis was lost or found, or that the stream ends."""
        if event is CLOSE:
            self.closed = True
        self.put(event["kind"], event_text(event["kind"], {}).encode())

    def put(self, name: str, text: bytes, chunk: bytes = b"") -> None:
        """Send a text, at once if it also comes as a `chunk` for the socket; a waiting text of the same name is replaced."""
        with self._told:
            if chunk and self._socket is not None and self._sleeps and not self._texts:
                try:
                    sent = self._socket.send(chunk, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    self.closed = True
                    sent = 0
                if sent == len(chunk):
                    return
                if sent:
                    self._rest, text = memoryview(chunk)[sent:], b""
            self._sleeps = False
            self._texts.pop(name, None)
            self._texts[name] = text
            self._told.notify()

    def take(self, timeout_s: float) -> bytes:
        """Everything that waits, or nothing after `timeout_s`. Raises OSError if the page is closed."""
        with self._told:
            if not self._texts:
                self._sleeps = True
                self._told.wait(timeout_s)
                self._sleeps = False
            texts, self._texts = self._texts, {}
            rest, self._rest = self._rest, None
        if rest is not None and self._socket is not None:
            self._socket.sendall(rest)  # the rest of a chunk, so it must be sent before the next chunk
        return b"".join(texts.values())


def http_chunk(text: bytes) -> bytes:
    """The text as one chunk of an HTTP response with chunked encoding."""
    return b"%X\r\n%b\r\n" % (len(text), text)
