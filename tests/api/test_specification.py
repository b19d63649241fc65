"""schemathesis asks what the OpenAPI document allows and forbids, and checks that the answers are as it says."""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import load_all_checks
from schemathesis.openapi.checks import RejectedPositiveData

from tests.api.farm_api import FarmApi

EXAMPLES = int(os.environ.get("SPECIFICATION_EXAMPLES", "3"))
"""Requests generated for each operation and mode; the slow campaign raises it."""
ENDLESS = ["live_events", "job_events"]
"""Streams do not end by themselves; test_events follows them."""

load_all_checks()


@pytest.fixture(scope="module")
def specification(api: FarmApi) -> Any:
    api.rendered("for the specification")
    return schemathesis.openapi.from_wsgi("/api/v1/openapi.json", api.app)


schema = schemathesis.pytest.from_fixture("specification").exclude(operation_id=ENDLESS)


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_specification_holds(case: Any) -> None:
    case.call_and_validate()
