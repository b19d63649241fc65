"""The refusal of a live stream."""

from __future__ import annotations

from imagefarm.errors import Unavailable


class TooManyStreams(Unavailable):
    """Each live stream holds a thread, and there are no more for it."""

    def __init__(self, value: int) -> None:
        self.limit = "max_streams"
        self.value = value
        super().__init__(f"all {value} live streams of this process are taken, the limit max_streams; ask again, or poll")
