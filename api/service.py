"""The application that gunicorn serves; made anew in each of its processes."""

from __future__ import annotations

from api.app import create_app
from imagefarm.logs import configure_logs
from imagefarm.settings import load_settings

settings = load_settings()
configure_logs(settings, "api")
app = create_app(settings)
