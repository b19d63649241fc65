"""Lookup `/lookup`: drop any picture, and find the job that made it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, request

from api.http.auth import authenticate, require
from api.http.context import current_app_context
from api.http.routes import whole_upload
from api.pages.jobs.cards import JobCard, job_cards
from api.pages.rendering import page
from api.v1.images.lookup import find
from api.v1.images.routes import MAX_LOOKUP_BYTES
from imagefarm.auth import Scope
from imagefarm.errors import RequestError
from imagefarm.store.models import Job

pages = Blueprint("pages_lookup", __name__)

SHOWN_CHARS = 4000


@dataclass(frozen=True, slots=True)
class LookupView:
    """What was found. `by` says how: by the file, its pixels, or what its metadata claims; None if it was not."""

    asked: bool = False
    by: str | None = None
    jobs: tuple[JobCard, ...] = ()
    sha256: str = ""
    pixel_sha256: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    refusal: str = ""


@pages.get("/lookup")
def lookup_page() -> Response:
    """Show where to drop a picture."""
    require(authenticate(current_app_context()), Scope.READ)
    return page("lookup.html", LookupView())


@pages.post("/lookup")
def lookup_form() -> Response:
    """Find the job of the picture that was sent."""
    app_context = current_app_context()
    caller = authenticate(app_context)
    require(caller, Scope.READ)
    request.max_content_length = max(app_context.settings.max_body_bytes, MAX_LOOKUP_BYTES)
    try:
        found = find(app_context, caller, whole_upload("file"))
    except RequestError as error:
        return page("lookup.html", LookupView(asked=True, refusal=error.detail), error.status)
    with app_context.store.read() as session:
        rows = [session.get_one(Job, job_id) for job_id in dict.fromkeys(image.job_id for image in found.images)]
        view = LookupView(
            asked=True,
            by=found.by,
            jobs=job_cards(session, app_context, rows),
            sha256=found.sha256,
            pixel_sha256=found.pixel_sha256 or "",
            metadata=tuple((str(name), _text(value)) for name, value in found.metadata.items()),
        )
    return page("lookup.html", view)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + " …"
