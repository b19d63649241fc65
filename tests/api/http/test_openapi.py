"""The OpenAPI document: valid, complete, and what the API does."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.http.routes import HeaderParameter, Routes, routes_of
from imagefarm.auth import Scope
from tests.api.farm_api import FarmApi


@pytest.fixture(scope="module")
def document(api: FarmApi) -> dict[str, Any]:
    return api.get("/api/v1/openapi.json")


def test_it_is_valid(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_every_route_is_in_it_and_says_what_it_does(api: FarmApi, document: dict[str, Any]) -> None:
    declared = {(route.path, route.method.lower()) for route in routes_of(api.app)}
    assert declared == {(path, method) for path, methods in document["paths"].items() for method in methods}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            assert set(re.findall(r"{(\w+)}", path)) == {
                parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"
            }
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= set(document["components"]["schemas"])


def test_bounds_are_told(document: dict[str, Any]) -> None:
    request = document["components"]["schemas"]["JobRequest"]
    assert request["additionalProperties"] is False
    assert request["properties"]["prompt"]["maxLength"] == 4000
    assert request["properties"]["count"]["maximum"] == 64
    custom_id = next(option for option in request["properties"]["custom_id"]["anyOf"] if option["type"] == "string")
    assert custom_id["maxLength"] == 128
    listing = {parameter["name"]: parameter for parameter in document["paths"]["/api/v1/jobs"]["get"]["parameters"]}
    assert listing["limit"]["schema"]["maximum"] == 200
    assert listing["state"]["schema"]["items"]["enum"]
    assert listing["created_after"]["schema"]["format"] == "date-time"


def test_the_page_is_offline_and_complete(api: FarmApi, document: dict[str, Any]) -> None:
    response = api.http.get("/docs")
    assert response.status_code == 200
    assert "script" not in response.text
    assert not re.search(r'(src|href)="(https?:)?//', response.text)
    for methods in document["paths"].values():
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in response.text
    for target in set(re.findall(r'href="#([^"]+)"', response.text)):
        assert f'id="{target}"' in response.text
    assert api.http.get("/problems/conflict").headers["Location"].endswith("#problem-conflict")
    assert api.http.get("/problems/%3Cscript%3E").headers["Location"].endswith("#problems")


def test_a_handler_asks_only_for_what_can_be_given() -> None:
    routes = Routes(tag="x")

    def asks(app_context: object, moon: object) -> Any:
        """Ask for the moon."""

    with pytest.raises(TypeError, match="moon"):
        routes.get("/x", scope=Scope.READ)(asks)

    def silent(app_context: object) -> Any: ...

    with pytest.raises(TypeError, match="docstring"):
        routes.get("/x", scope=Scope.READ)(silent)
    assert HeaderParameter(name="X", description="").schema == {"type": "string"}
