"""The application that gunicorn serves. Each gunicorn process builds its own."""

from __future__ import annotations

from api.app import create_app
from imagefarm.logs import configure_logs
from imagefarm.settings import load_settings

settings = load_settings()
configure_logs(settings, "api")
app = create_app(settings)
