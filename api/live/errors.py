"""The error for a live stream that cannot open."""

from __future__ import annotations

from imagefarm.errors import Unavailable


class TooManyStreams(Unavailable):
    """All streams of this process are in use. Each live stream holds a thread."""

    def __init__(self, value: int) -> None:
        self.limit = "max_streams"
        self.value = value
        super().__init__(f"all {value} live streams of this process are in use, the limit max_streams; retry later, or poll")
