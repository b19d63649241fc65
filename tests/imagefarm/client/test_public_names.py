"""What the client exports: complete, sorted, documented, and typed as the API is."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import ModuleType

import pytest

import imagefarm
from api.v1.batches.batch_request import BatchParameters
from api.v1.batches.picks import FinalsBody
from api.v1.jobs.routes import JobFilters as ApiJobFilters
from imagefarm import AsyncClient, Client, client
from imagefarm.client import errors, fields, schemas
from imagefarm.client.client import Farm
from imagefarm.client.resource import Listing, Operation, Resource
from imagefarm.recipe import JobRequest, Lora, SubjectPlacement, SubjectRequest, Upscale


def defined(module: ModuleType) -> set[str]:
    """Classes of a module that its users may name."""
    return {
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__.startswith(module.__name__) and not name.startswith("_")
    }


def test_exports_are_sorted_and_complete() -> None:
    assert client.__all__ == sorted(client.__all__)
    pages = {name for name in defined(schemas) if name.endswith("List")}
    assert set(client.__all__) == {"AsyncClient", "Client"} | defined(errors) | defined(fields) | (
        defined(schemas) - pages - {"ResponseModel"}
    )
    assert {*imagefarm.__all__} == {"AsyncClient", "Client", "ClientError", "__version__"}
    for name in {*imagefarm.__all__} - {"__version__"}:
        assert getattr(imagefarm, name) is getattr(client, name)


@pytest.mark.parametrize("name", client.__all__)
def test_every_name_is_documented(name: str) -> None:
    text = inspect.getdoc(getattr(client, name)) or ""
    assert text.endswith(".") or text.endswith("```"), text
    assert "Base" not in text.partition(" ")[0] or name == "ClientError"


def resources(of: object, path: str) -> Iterator[tuple[str, Resource]]:  # type: ignore[type-arg]
    for name, value in vars(of).items():
        if isinstance(value, Resource):
            yield f"{path}.{name}", value
            yield from resources(value, f"{path}.{name}")


def test_every_operation_is_documented_with_its_parameters() -> None:
    with Client("http://farm") as farm:
        found = dict(resources(farm, "farm"))
    assert {"farm.jobs", "farm.batches", "farm.images", "farm.admin.keys"} <= found.keys()
    for path, resource in found.items():
        assert type(resource).__doc__ == f"`{path}`."
        for name, operation in vars(type(resource)).items():
            if isinstance(operation, Operation | Listing):
                bound = getattr(resource, name)
                assert bound.__doc__ == operation.__doc__
                assert (inspect.getdoc(operation) or "").endswith("."), f"{path}.{name}"
                assert "self" not in inspect.signature(bound).parameters


def test_both_clients_have_the_same_resources() -> None:
    both = Client("http://farm"), AsyncClient("http://farm")
    assert all(isinstance(one, Farm) for one in both)
    first, second = ({path: type(value) for path, value in resources(one, "farm")} for one in both)
    assert first == second


def test_errors_are_one_tree_that_is_drawn_at_the_top() -> None:
    names = defined(errors)
    assert all(name.endswith("Error") for name in names)
    drawn = re.findall(r"^(?:[├└]── )?(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)
    assert (drawn[0], sorted(drawn)) == ("ClientError", sorted(names))
    assert all(getattr(errors, name).__bases__ == (errors.ClientError,) for name in names - {"ClientError"})


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        (fields.JobFields, JobRequest.model_fields.keys() - {"prompt"}),
        (fields.LoraFields, Lora.model_fields.keys()),
        (fields.UpscaleFields, Upscale.model_fields.keys()),
        (fields.SubjectFields, SubjectRequest.model_fields.keys()),
        (fields.PlacementFields, SubjectPlacement.model_fields.keys()),
        (fields.JobFilters, ApiJobFilters.model_fields.keys()),
        (fields.BatchFields, BatchParameters.model_fields.keys()),
        (fields.FinalsFields, FinalsBody.model_fields.keys() - {"width", "height"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_keywords_are_those_that_the_api_takes(typed: type, names: set[str]) -> None:
    assert typed.__annotations__.keys() == names
