"""The settings in force, with masked secrets."""

from __future__ import annotations

import json

from api.http.schemas import ResponseModel
from imagefarm.settings import Settings, redacted

SECRET_WORDS = ("secret", "password", "token", "key")


class SettingResponse(ResponseModel):
    """One setting: its value as text, masked if secret, and its origin (default, a file, a variable ...)."""

    name: str
    value: str
    origin: str
    meaning: str


def shown_settings(settings: Settings) -> list[SettingResponse]:
    """All settings, with masked secrets."""
    origins = settings.origins({})
    shown = []
    for name, info in type(settings).model_fields.items():
        value = getattr(settings, name)
        text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
        if name.endswith("_url"):
            text = redacted(text)
        elif text and any(word in name for word in SECRET_WORDS):
            text = "***"
        # the embedded farm passes every value to its services as a variable, so a default value has no other origin
        is_default = value == info.get_default(call_default_factory=True)
        origin = "default" if is_default else origins[name]
        shown.append(SettingResponse(name=name, value=text, origin=origin, meaning=info.description or ""))
    return shown
