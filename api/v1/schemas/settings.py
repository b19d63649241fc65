"""The settings in force as they may be shown: secrets are masked."""

from __future__ import annotations

import json

from api.http.schemas import ResponseModel
from imagefarm.settings import Settings, redacted

SECRET_WORDS = ("secret", "password", "token", "key")


class SettingResponse(ResponseModel):
    """One setting as it may be shown: its value as text, and where it came from (default, a file, a variable ...)."""

    name: str
    value: str
    origin: str
    meaning: str


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
