"""A TCP proxy before a unix socket (of Redis, of PostgreSQL) whose connections can fall silent without being closed.

This simulates a broken network, and a proxy that accepts all bytes and forwards none.
"""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """Forwards bytes both ways until it is set to fall silent."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._links: set[_Link] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> int:
        """Every connection there is now passes nothing more, and stays open; return how many."""
        links, self._links = self._links, set()
        for link in links:
            link.silent = True
        return len(links)

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(self.target)
            except OSError:
                near.close()
                continue
            link = _Link(near, far)
            self._links.add(link)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=link.pump, args=(source, sink), daemon=True).start()


class _Link:
    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.ends = (near, far)
        self.silent = False

    def pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.silent:
                    continue  # read and dropped: the sender's kernel believes that it arrived
                sink.sendall(data)
        if not self.silent:
            for end in self.ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
