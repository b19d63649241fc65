"""One open page: what it has not been sent yet, and its socket.

A stream holds a thread of the server, which sleeps. Whoever has something for five hundred of them would wake five hundred
threads, each to write a few kilobytes; so what fits into a socket at once is written there and then, and only what does not is
left to the stream's own thread.
"""

from __future__ import annotations

import socket
import threading

from api.http.sse import event_text
from api.live.event_fanout import CLOSE, Event, Subscription


class PageConnection(Subscription):
    """An open page. Of each kind of text it holds the newest, so a slow connection skips some and piles nothing up."""

    def __init__(self, client: socket.socket | None = None) -> None:
        super().__init__(lambda _: False)
        self.tag = ""
        self._socket = client
        self._texts: dict[str, bytes] = {}
        self._rest: memoryview | None = None
        self._told = threading.Condition(threading.Lock())
        self._sleeps = False
        """The stream's thread has sent all that it had: until it is told of more, others may write to the socket."""

    def offer(self, event: Event) -> None:
        """Hear that Redis is lost or found, or that this is the end."""
        if event is CLOSE:
            self.closed = True
        self.put(event["kind"], event_text(event["kind"], {}).encode())

    def put(self, name: str, text: bytes, chunk: bytes = b"") -> None:
        """Send a text, at once if it is also given as a `chunk` for the socket; or in place of one of that name that waits."""
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
        """All that waits, or nothing after `timeout_s`. Raises OSError if the page has gone."""
        with self._told:
            if not self._texts:
                self._sleeps = True
                self._told.wait(timeout_s)
                self._sleeps = False
            texts, self._texts = self._texts, {}
            rest, self._rest = self._rest, None
        if rest is not None and self._socket is not None:
            self._socket.sendall(rest)  # of a chunk, so it goes before whatever is a chunk of its own
        return b"".join(texts.values())


def http_chunk(text: bytes) -> bytes:
    """The text as HTTP sends a part of an answer whose length is not known."""
    return b"%X\r\n%b\r\n" % (len(text), text)
