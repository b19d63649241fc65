"""The settings in force, and where each came from. Read only; secrets are not shown."""

from __future__ import annotations

import json

from api.http.context import AppContext
from api.http.routes import Routes
from api.http.schemas import ResponseModel
from imagefarm.auth import Caller, Scope
from imagefarm.settings import Settings, redacted

routes = Routes(tag="queue")

SECRET_WORDS = ("secret", "password", "token", "key")


class SettingResponse(ResponseModel):
    """One setting as it may be shown: its value as text, and where it came from (default, a file, a variable ...)."""

    name: str
    value: str
    origin: str
    meaning: str


class SettingList(ResponseModel):
    """Every setting, in the order of the documentation."""

    items: list[SettingResponse]
    next_cursor: None = None


@routes.get("/api/v1/settings", scope=Scope.ADMIN, response=SettingList)
def list_settings(app_context: AppContext, caller: Caller) -> SettingList:
    """See the limits and settings in force, and where each came from.

    Secrets are masked. Settings are changed where they came from, not here.
    """
    return SettingList(items=shown_settings(app_context.settings))


def shown_settings(settings: Settings) -> list[SettingResponse]:
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
        origin = "default" if is_default else origins[name]
        shown.append(SettingResponse(name=name, value=text, origin=origin, meaning=info.description or ""))
    return shown
