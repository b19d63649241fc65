"""The refusal of a body that is too large. Like those of quotas it says which bound it was, and its value."""

from __future__ import annotations

from imagefarm.errors import RequestError
from imagefarm.settings import Settings

OF_BODIES = ("max_body_bytes", "max_table_bytes", "max_asset_bytes")


class TooLarge(RequestError):
    """A body has more bytes than are taken. It is no use to come back with it."""

    code = "too_large"
    status = 413
    title = "The body is too large"

    def __init__(self, settings: Settings, value: int | None) -> None:
        self.limit = next((name for name in OF_BODIES if getattr(settings, name) == value), "body_bytes")
        self.value = value
        super().__init__(f"the body is larger than {value} bytes, the limit {self.limit}; send less at once, or a batch")
