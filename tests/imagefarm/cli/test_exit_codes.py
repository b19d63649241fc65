"""The exit codes that docs/cli/README.md lists come, each from a command against a real API."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import httpx
import pytest

from imagefarm import Client
from imagefarm.cli.exit_codes import MEANING, ExitCode
from imagefarm.errors import ConfigurationError
from tests.api.farm_api import FarmApi
from tests.imagefarm.cli.test_commands import Command, run

__all__ = ["run"]

Hook = Callable[[httpx.Request, httpx.Response], None]


@pytest.fixture
def reach(run: Command, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have the command line talk to an API in this process; `then` is called after each of its requests."""
    monkeypatch.setattr("imagefarm.cli.connection.RETRIES", 0)

    def reached(api: FarmApi, then: Hook = lambda request, response: None) -> None:
        class Hooked(httpx.WSGITransport):
            def handle_request(self, request: httpx.Request) -> httpx.Response:
                response = super().handle_request(request)
                then(request, response)
                return response

        monkeypatch.setattr("imagefarm.cli.connection.Client", partial(Client, transport=Hooked(app=api.app)))

    return reached


def test_every_code_has_one_meaning_and_every_configuration_error_a_code() -> None:
    assert set(MEANING) == set(ExitCode)
    kinds = [ConfigurationError, *ConfigurationError.__subclasses__()]
    assert {ExitCode(kind.exit_code) for kind in kinds} == {code for code in ExitCode if 3 <= code <= 7}


def test_a_wrong_request_and_what_is_not_there(run: Command, api: FarmApi, reach: Callable[..., None]) -> None:
    reach(api)
    assert run("submit", "a mug", "--no-wait").code == ExitCode.OK
    wrong = run("submit", "a mug", "--model", "nope")
    assert (wrong.code, "nope" in wrong.err) == (ExitCode.REQUEST, True)
    assert run("show", "job_00000000000000000000000000").code == ExitCode.NOT_FOUND


def test_a_job_that_ends_badly_one_that_takes_too_long_and_an_interrupt(
    run: Command, api: FarmApi, reach: Callable[..., None]
) -> None:
    def cancel(request: httpx.Request, response: httpx.Response) -> None:
        if request.method == "POST":
            newest = api.get("/api/v1/jobs", query_string={"limit": 1})["items"][0]["id"]
            assert api.http.post(f"/api/v1/jobs/{newest}/cancel").status_code == 200

    reach(api, cancel)
    assert run("submit", "a mug").code == ExitCode.JOB_FAILED

    reach(api)
    job = api.submit("a job that is rendered")
    api.render(api.claim(job["id"]))
    assert run("replay", job["id"], "--timeout", "0.1").code == ExitCode.WAIT_TIMEOUT

    def interrupt(request: httpx.Request, response: httpx.Response) -> None:
        if request.method == "GET":
            raise KeyboardInterrupt

    reach(api, interrupt)
    outcome = run("submit", "a mug")
    assert (outcome.code, "continues" in outcome.err) == (ExitCode.INTERRUPTED, True)
