"""Pictures that a single job names by URL: fetched through the guarded fetcher when it is submitted, and kept as assets."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from api.context import Farm
from api.thumbs import decoding
from imagefarm.auth import Caller
from imagefarm.recipe import JobRequest, SubjectRequest
from scheduler.batches.pictures import PICTURE_FIELDS, Pictures, urls_in

STAND_IN = "asset_" + "0" * 26


def names_urls(request: JobRequest) -> bool:
    """True if a picture of the request has still to be fetched."""
    return any(urls_in(_named(request)))


def fetch_pictures(farm: Farm, caller: Caller, request: JobRequest) -> JobRequest:
    """The request with assets in place of URLs. Raises InvalidRequest naming the field; then nothing is stored."""
    named = _named(request)
    farm.catalogue.resolve(request.model_copy(update=_with_stand_ins(named)))  # nobody is asked for what would be refused anyway
    with closing(Pictures(farm.store, farm.settings, tenant_id=caller.tenant_id, decoding=decoding)) as pictures:
        found = pictures.resolve(named)
        pictures.keep(farm.outputs)
    if found.get("subject") is not None:
        found["subject"] = SubjectRequest.model_validate(found["subject"])
    return request.model_copy(update=found)


def _named(request: JobRequest) -> dict[str, Any]:
    return request.model_dump(include={*map(str, PICTURE_FIELDS)}, exclude_none=True)


def _with_stand_ins(named: dict[str, Any]) -> dict[str, Any]:
    def stand_in(value: Any) -> Any:
        return STAND_IN if isinstance(value, str) and "://" in value else value

    standing = {name: stand_in(value) for name, value in named.items() if name != "subject"}
    if (subject := named.get("subject")) is not None:
        standing["subject"] = SubjectRequest.model_validate({name: stand_in(value) for name, value in subject.items()})
    return standing
