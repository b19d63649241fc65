"""schemathesis asks what the OpenAPI document allows and forbids, and checks that the answers are as it says."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import schemathesis
from werkzeug.serving import make_server

from imagefarm.auth import Scope
from tests.api.farm_api import FarmApi

LEFT_OUT = ["live_events", "job_events"]
"""Streams, which do not end by themselves; test_events follows them."""
ALSO_RIGHT = ["2xx", "302", "304", "400", "404", "409", "422"]
"""Answers to what a schema allows: the catalogue may refuse it still, an id name nothing, a file be no picture."""


@contextmanager
def serving(api: FarmApi) -> Iterator[str]:
    """The API behind a real socket."""
    server = make_server("127.0.0.1", 0, api.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask_all(api: FarmApi, *, examples: int, bounds: bool) -> int:
    """Ask `examples` random requests of each operation, and with `bounds` all that its schema's limits suggest.

    Returns how many requests were made; raises AssertionError naming every one whose answer breaks a check.
    """
    api.app_context.settings.max_wait_s = 0.1
    logging.getLogger("werkzeug").setLevel("WARNING")
    admin = api.key("specification", Scope.FARM)
    api.rendered("for the specification", headers=admin)
    phases: dict[str, Any] = {"stateful": {"enabled": False}, "coverage": {"enabled": bounds}}
    config = schemathesis.Config.from_dict(
        {
            "seed": 1,
            "continue-on-failure": True,
            "headers": admin,
            "generation": {"max-examples": examples, "deterministic": True, "no-shrink": True, "database": "none"},
            "phases": phases,
            "checks": {"positive_data_acceptance": {"expected-statuses": ALSO_RIGHT}},
        }
    )
    with serving(api) as url:
        schema = schemathesis.openapi.from_url(f"{url}/api/v1/openapi.json", config=config)
        return run(schema.exclude(operation_id=LEFT_OUT))


def run(schema: Any) -> int:
    """Ask what a schema allows and forbids; see `ask_all`."""
    from schemathesis.engine import events, from_schema

    failures: list[str] = []
    asked = 0
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            asked += len(event.recorder.cases)
            for case_id, checks in event.recorder.checks.items():
                case = event.recorder.cases[case_id].value
                sent = f"{case.method} {case.formatted_path} {case.query} {case.body!r:.200}"
                failures += [f"{sent}: {check.failure_info.failure}" for check in checks if check.failure_info is not None]
        if isinstance(event, events.NonFatalError | events.FatalError):
            failures.append(str(event.info if isinstance(event, events.NonFatalError) else event.exception))
    assert not failures, "\n\n".join(dict.fromkeys(failures))
    return asked


def test_the_specification_holds(keyed: FarmApi) -> None:
    assert ask_all(keyed, examples=3, bounds=False) > 100


@pytest.mark.slow
def test_the_specification_holds_at_its_bounds(keyed: FarmApi) -> None:
    assert ask_all(keyed, examples=30, bounds=True) > 2000
