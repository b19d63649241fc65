"""Operators' commands: load or unload models. They run while nothing renders."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from imagefarm.logs import get_logger

if TYPE_CHECKING:
    from worker.render.loop import RenderLoop

log = get_logger(__name__)


class CommandQueue:
    """Passes commands to the render loop. A slice runs them whenever its running set is empty. Between slices this thread takes
    the loop's lock and runs them itself. `on_done` is called afterwards.
    """

    def __init__(self, loop: RenderLoop, on_done: Callable[[], None]) -> None:
        self.loop = loop
        self.on_done = on_done
        self._something = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="commands", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stops the thread without waiting for a load in progress: the process is about to end."""
        self._stopping = True
        self._something.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def take(self, commands: list[dict[str, str]]) -> None:
        """Called when commands arrived with a heartbeat."""
        for command in commands:
            log.info("worker.command", **command)
            self.loop.context.commands.append((command["do"], command["model"]))
        if commands:
            self._something.set()

    def _run(self) -> None:
        while True:
            self._something.wait()
            self._something.clear()
            if self._stopping:
                return
            with self.loop.turn:
                self.loop.run_commands()
            self.on_done()
