"""Bad requests: cases with their refusals, and the check that a refused request changes no row."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from typing import Any

from PIL import Image as Picture
from sqlalchemy import func, select

from imagefarm.store.models import Base, Usage
from tests.api.farm_api import FarmApi, problem

NOWHERE = {kind: f"{kind}_01JD0000000000000000000000" for kind in ("batch", "job", "img", "asset", "hook", "msg", "user", "key")}
BATCH, PASSWORD = "/api/v1/batches/{batch}", "correct horse battery"
PAUSED, JOB = "/api/v1/batches/{paused}", "/api/v1/jobs/{job}"
SURROGATE, NUL = b'"\\ud800"', b'"a\\u0000b"'


@dataclass
class Bad:
    """A request, the status of its refusal, the first field that the refusal names ("" for none), and words in it (`|`: any)."""

    path: str
    body: Any = None
    names: str = ""
    says: str = ""
    status: int = 422
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


def get(path: str, names: str = "", says: str = "", status: int = 422) -> Bad:
    return Bad(path, None, names, says, status, "GET")


def picks(*each: Any) -> dict[str, Any]:
    return {"picks": list(each)}


def user(**changes: Any) -> dict[str, Any]:
    return {"name": "ada", "password": PASSWORD} | changes


def hook(**changes: Any) -> dict[str, Any]:
    return {"url": "https://shop.example/hook", "kinds": ["batch.done"]} | changes


def finals(**changes: Any) -> dict[str, Any]:
    return {"width": 128, "height": 128} | changes


def table(**options: Any) -> dict[str, Any]:
    return {"rows": [{"prompt": "a mug"}], **options}


def channel(**changes: Any) -> dict[str, Any]:
    return {"name": "own", "width": 64, "height": 64} | changes


def zipped(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    data = io.BytesIO()
    Picture.new(mode, (width, height)).save(data, "PNG")
    return data.getvalue()


def rows(api: FarmApi) -> dict[str, int]:
    """The number of rows of each table."""
    with api.app_context.store.read() as session:
        tables = [table for table in Base.metadata.sorted_tables if table.name != Usage.__tablename__]
        found = session.execute(select(*(select(func.count()).select_from(table).scalar_subquery() for table in tables))).one()
    return dict(zip([table.name for table in tables], found, strict=True))


def named(value: Any, things: dict[str, str]) -> Any:
    """`value` with each {name} replaced by its id."""
    if isinstance(value, str):
        for name, thing in things.items():
            value = value.replace(f"{{{name}}}", thing)
        return value
    if isinstance(value, dict):
        return {key: named(each, things) for key, each in value.items()}
    return [named(each, things) for each in value] if isinstance(value, list) else value


def check_refused(api: FarmApi, things: dict[str, str], cases: list[Bad]) -> None:
    """Send each request: it must be refused as its case says, and change no row."""
    wrong = []
    before = rows(api)
    for place, bad in enumerate(cases):
        sent: dict[str, Any] = {"headers": bad.headers}
        if isinstance(bad.body, bytes):
            sent |= {"data": bad.body, "content_type": bad.headers.get("Content-Type", "application/json")}
        elif bad.body is not None:
            sent["json"] = named(bad.body, things)
        response = api.http.open(named(bad.path, things), method=bad.method, **sent)
        try:
            body = problem(response, bad.status)
            errors = body.get("errors", [])
            if bad.names:
                assert errors[0]["field"] == bad.names, f"names {errors[0]['field']}"
            assert bad.names == "" or errors[0]["remedy"], "says no remedy"
            assert bad.says, "the case has no word"
            assert PASSWORD not in response.text, "repeats the password"
            assert any(word in json.dumps(body, ensure_ascii=False) for word in bad.says.split("|")), f"does not say {bad.says}"
            assert rows(api) == before, "left something behind"
        except AssertionError as failure:
            wrong.append(
                f"{place} {bad.method} {bad.path} {str(bad.body)[:100]}: {str(failure).splitlines()[0]}\n  {response.text[:400]}"
            )
            before = rows(api)
        response.close()
    assert not wrong, "\n".join(wrong)
    assert len(cases) > 10
