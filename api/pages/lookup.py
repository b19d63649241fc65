"""`/lookup`: find the job of a picture file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from flask import Response, request

from api.http.context import AppContext
from api.http.routes import whole_upload
from api.pages.job_cards import JobCard, job_cards
from api.pages.registry import Pages
from api.pages.rendering import page
from imagefarm.auth import Caller, Scope
from imagefarm.errors import RequestError
from imagefarm.store.models import Job
from scheduler.assets.lookup import MAX_LOOKUP_BYTES, find_image

pages = Pages("pages_lookup")

SHOWN_CHARS = 4000


@dataclass(frozen=True, slots=True)
class LookupView:
    """The result of a lookup. `by` is the match (file, pixels or metadata), None without one."""

    asked: bool = False
    by: str | None = None
    jobs: tuple[JobCard, ...] = ()
    sha256: str = ""
    pixel_sha256: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    refusal: str = ""


@pages.get("/lookup", scope=Scope.READ)
def lookup_page() -> Response:
    """Show the upload form."""
    return page("lookup.html", LookupView())


@pages.post("/lookup", scope=Scope.READ)
def lookup_form(app_context: AppContext, caller: Caller) -> Response:
    """Find the job of the uploaded file."""
    request.max_content_length = max(app_context.settings.max_body_bytes, MAX_LOOKUP_BYTES)
    try:
        data = whole_upload("file")
        found = find_image(app_context.store, data, caller.tenant_filter, decode_slots=app_context.decode_slots)
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
