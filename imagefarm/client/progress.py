"""Progress bars on standard error, with the remaining time. Nothing is shown if standard error is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Advance(Protocol):
    def __call__(self, done: float, total: float, words: str | None = None) -> None: ...


@contextmanager
def progress_bar(words: str, total: float) -> Iterator[Advance]:
    """Show a bar during the block. Call the yielded function with the amount done, the total, and a new label if it changes."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        task = bars.add_task(words, total=total)

        def advance(done: float, total: float, words: str | None = None) -> None:
            bars.update(task, completed=done, total=total, description=words)

        yield advance
