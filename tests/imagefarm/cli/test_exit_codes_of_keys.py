"""The exit codes of a farm that asks for keys: refused, and over a limit."""

from __future__ import annotations

from collections.abc import Callable

from imagefarm.auth import Scope, create_key
from imagefarm.cli.exit_codes import ExitCode
from tests.api.farm_api import FarmApi
from tests.imagefarm.cli.test_commands import Command, run
from tests.imagefarm.cli.test_exit_codes import reach

__all__ = ["reach", "run"]


def test_a_refused_key_and_a_limit(run: Command, keyed: FarmApi, reach: Callable[..., None]) -> None:
    reach(keyed)
    assert run("jobs").code == ExitCode.AUTH_FAILED
    reader = create_key(keyed.app_context.store, name="reader", scopes=[Scope.READ], tenant="default")
    assert run("submit", "a mug", "--no-wait", "--key", reader.key).code == ExitCode.AUTH_FAILED
    made = create_key(
        keyed.app_context.store, name="small", scopes=[Scope.SUBMIT, Scope.READ], tenant="default", limits={"queued": 1}
    )
    assert run("submit", "a mug", "--no-wait", "--key", made.key).code == ExitCode.OK
    over = run("submit", "a mug", "--no-wait", "--key", made.key)
    assert (over.code, over.err.count("\n")) == (ExitCode.BUSY, 1), over.err
