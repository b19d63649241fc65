"""`/admin/settings`: the limits and settings in force, and the origin of each. Read only; secrets are masked."""

from __future__ import annotations

from flask import Response

from api.http.context import AppContext
from api.pages.registry import Pages
from api.pages.rendering import page
from api.v1.schemas.settings import shown_settings
from imagefarm.auth import Scope

pages = Pages("pages_admin_settings")


@pages.get("/admin/settings", scope=Scope.FARM)
def settings_page(app_context: AppContext) -> Response:
    """Show every setting; those that differ from the default come first."""
    shown = shown_settings(app_context.settings)
    return page("admin/settings.html", tuple(sorted(shown, key=lambda one: one.origin == "default")))
