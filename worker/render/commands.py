"""Commands of operators: models to load before anybody asks for them, or to let go. Carried out while nothing renders."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from imagefarm.logs import get_logger

if TYPE_CHECKING:
    from worker.render.loop import RenderLoop

log = get_logger(__name__)


class CommandQueue:
    """Hands commands to the render loop. A slice looks at them whenever its running set is empty; between slices this thread
    takes the loop's turn and has them carried out. `on_done` is called after that.
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
        """A load that has begun is not waited for: the process ends with it."""
        self._stopping = True
        self._something.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def take(self, commands: list[dict[str, str]]) -> None:
        """Commands came with a heartbeat."""
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
