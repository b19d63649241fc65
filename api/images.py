"""Images: metadata with audit, the file."""

from __future__ import annotations

from api.routes import Routes

routes = Routes(tag="images")
