"""Pictures that a single job names by URL: fetched through the guarded fetcher when it is submitted, and kept as assets."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from api.http.context import AppContext
from api.v1.images.thumbnails import decode_slots
from imagefarm.auth import Caller
from imagefarm.recipe import JobRequest, SubjectRequest
from scheduler.batches.table.table_images import IMAGE_FIELDS, TableImages, urls_in

STAND_IN = "asset_" + "0" * 26


def names_urls(request: JobRequest) -> bool:
    """True if a picture of the request has still to be fetched."""
    return any(urls_in(_named(request)))


def fetch_pictures(app_context: AppContext, caller: Caller, request: JobRequest) -> JobRequest:
    """The request with assets in place of URLs. Raises InvalidRequest naming the field; then nothing is stored."""
    named = _named(request)
    app_context.catalogue.resolve(
        request.model_copy(update=_with_stand_ins(named))
    )  # nobody is asked for what would be refused anyway
    with closing(
        TableImages(app_context.store, app_context.settings, tenant_id=caller.tenant_id, decode_slots=decode_slots)
    ) as table_images:
        found = table_images.resolve(named)
        table_images.save(app_context.outputs)
    if found.get("subject") is not None:
        found["subject"] = SubjectRequest.model_validate(found["subject"])
    return request.model_copy(update=found)


def _named(request: JobRequest) -> dict[str, Any]:
    return request.model_dump(include={*map(str, IMAGE_FIELDS)}, exclude_none=True)


def _with_stand_ins(named: dict[str, Any]) -> dict[str, Any]:
    def stand_in(value: Any) -> Any:
        return STAND_IN if isinstance(value, str) and "://" in value else value

    standing = {name: stand_in(value) for name, value in named.items() if name != "subject"}
    if (subject := named.get("subject")) is not None:
        standing["subject"] = SubjectRequest.model_validate({name: stand_in(value) for name, value in subject.items()})
    return standing
