"""The error for a body that is too large. Like a quota error it names the limit and its value."""

from __future__ import annotations

from imagefarm.errors import RequestError
from imagefarm.settings import Settings

OF_BODIES = ("max_body_bytes", "max_table_bytes", "max_asset_bytes")


class TooLarge(RequestError):
    """The body has more bytes than the limit allows. Retrying the same body cannot succeed."""

    code = "too_large"
    status = 413
    title = "The body is too large"

    def __init__(self, settings: Settings, value: int | None) -> None:
        self.limit = next((name for name in OF_BODIES if getattr(settings, name) == value), "body_bytes")
        self.value = value
        super().__init__(f"the body is larger than {value} bytes, the limit {self.limit}; send a smaller body, or split it")
