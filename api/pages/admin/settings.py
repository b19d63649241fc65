"""`/admin/settings`: the limits and settings in force, and where each came from. Read only; secrets are not shown."""

from __future__ import annotations

from flask import Blueprint, Response

from api.http.auth import authenticate, require
from api.http.context import current_app_context
from api.pages.rendering import page
from api.v1.farm.settings import shown_settings
from imagefarm.auth import Scope

pages = Blueprint("pages_admin_settings", __name__)


@pages.get("/admin/settings")
def settings_page() -> Response:
    """Show every setting; those that are not defaults first."""
    app_context = current_app_context()
    require(authenticate(app_context), Scope.ADMIN)
    shown = shown_settings(app_context.settings)
    return page("admin_settings.html", tuple(sorted(shown, key=lambda one: one.origin == "default")))
