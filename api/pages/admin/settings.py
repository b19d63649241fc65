"""`/admin/settings`: the limits and settings in force, and where each came from. Read only; secrets are not shown."""

from __future__ import annotations

import json
from dataclasses import dataclass

from flask import Blueprint, Response

from api.auth import authenticate, require
from api.context import current_farm
from api.pages.rendering import page
from imagefarm.auth import Scope
from imagefarm.settings import Settings, redacted

pages = Blueprint("pages_admin_settings", __name__)

SECRET_WORDS = ("secret", "password", "token", "key")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it may be shown, and where its value came from."""

    name: str
    value: str
    origin: str
    meaning: str


@pages.get("/admin/settings")
def settings_page() -> Response:
    """Show every setting; those that are not defaults first."""
    farm = current_farm()
    require(authenticate(farm), Scope.ADMIN)
    shown = shown_settings(farm.settings)
    return page("admin_settings.html", tuple(sorted(shown, key=lambda one: one.origin == "default")))


def shown_settings(settings: Settings) -> tuple[Setting, ...]:
    """The settings as they may be shown."""
    origins = settings.origins({})
    shown = []
    for name, info in type(settings).model_fields.items():
        value = getattr(settings, name)
        text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
        if name.endswith("_url"):
            text = redacted(text)
        elif text and any(word in name for word in SECRET_WORDS):
            text = "***"
        # the embedded farm hands every value to its services as a variable; one that is the default came from nowhere else
        is_default = value == info.get_default(call_default_factory=True)
        shown.append(Setting(name, text, "default" if is_default else origins[name], info.description or ""))
    return tuple(shown)
