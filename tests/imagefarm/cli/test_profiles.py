"""Profiles: named farms with their keys, the options that override them, and completion of their names and of models."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest

from imagefarm import Client
from imagefarm.auth import Scope
from imagefarm.settings import PROJECT_ROOT
from tests.api.farm_api import FarmApi
from tests.imagefarm.cli.test_commands import Command, run

__all__ = ["run"]

HERE, ELSEWHERE = "http://farm.test", "http://other.test"


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("IMAGEFARM_PROFILE", "IMAGEFARM_URL", "IMAGEFARM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "config" / "imagefarm" / "profiles.toml"


@pytest.fixture
def add(run: Command, file: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Add a profile: name, address, key."""

    def added(name: str, url: str, key: str = "") -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(key + "\n"))
        outcome = run("profiles", "add", name, "--url", url, "--key-stdin")
        assert outcome.code == 0, outcome.err
        assert not key or key not in outcome.out + outcome.err

    return added  # type: ignore[return-value]


@pytest.fixture
def seen(keyed: FarmApi, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Every request of the command line: the host it went to, and what it showed."""
    requests: list[tuple[str, str | None]] = []

    class Watched(httpx.WSGITransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            requests.append((request.url.host, request.headers.get("Authorization")))
            return super().handle_request(request)

    monkeypatch.setattr("imagefarm.cli.connection.Client", partial(Client, transport=Watched(app=keyed.app)))
    monkeypatch.setattr("imagefarm.cli.connection.RETRIES", 0)
    return requests


def test_the_file_is_its_owners_and_no_key_is_printed(run: Command, add: Command, file: Path) -> None:
    add("shop", HERE + "/", "if_abc_s3cret")
    add("lab", ELSEWHERE)
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    add("third", "https://[::1]:8443/farm", "k")
    assert file.stat().st_mode & 0o777 == 0o600
    listed, as_json = run("profiles", "list"), run("profiles", "list", "--json")
    assert json.loads(as_json.out)[1] == {"name": "shop", "url": HERE, "has_key": True}
    assert "s3cret" not in listed.out + listed.err + as_json.out
    assert run("profiles", "remove", "shop").code == 0
    assert "s3cret" not in file.read_text()
    assert [each["name"] for each in json.loads(run("profiles", "list", "--json").out)] == ["lab", "third"]
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("name", "url"), [("a b", HERE), ("", HERE), ("x" * 65, HERE), ("a", "farm.test"), ("a", "ftp://x"), ("a", "http://u:p@x")]
)
def test_what_is_no_profile_is_refused(run: Command, file: Path, name: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    outcome = run("profiles", "add", name, "--url", url)
    assert (outcome.code, file.exists()) == (2, False)


@pytest.mark.parametrize("text", ["not toml [", "shop = 1", "[shop]\nkey = 'if_s3cret'", "[shop]\nurl = 1"])
def test_a_broken_file_is_told_without_its_keys(run: Command, file: Path, text: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(text)
    outcome = run("--profile", "shop", "jobs")
    assert outcome.code == 3
    assert "profiles.toml" in outcome.err
    assert "s3cret" not in outcome.err


def test_flag_and_environment_go_before_the_profile(
    run: Command, add: Command, keyed: FarmApi, seen: list[tuple[str, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = keyed.key("default", Scope.READ)["Authorization"]
    other = keyed.key("default", Scope.READ)["Authorization"]
    add("shop", HERE, key.removeprefix("Bearer "))

    def asked(*words: str) -> tuple[int, tuple[str, str | None]]:
        code = run(*words).code
        return code, seen[-1]

    assert asked("--profile", "shop", "jobs") == (0, ("farm.test", key))
    assert asked("--profile", "shop", "jobs", "--key", other.removeprefix("Bearer ")) == (0, ("farm.test", other))
    assert asked("--profile", "shop", "jobs", "--url", HERE) == (0, ("farm.test", key))
    # the key of one farm is not shown to another
    assert asked("--profile", "shop", "jobs", "--url", ELSEWHERE) == (10, ("other.test", None))
    monkeypatch.setenv("IMAGEFARM_PROFILE", "shop")
    assert asked("jobs") == (0, ("farm.test", key))
    monkeypatch.setenv("IMAGEFARM_API_KEY", other.removeprefix("Bearer "))
    assert asked("jobs") == (0, ("farm.test", other))
    monkeypatch.setenv("IMAGEFARM_URL", ELSEWHERE)
    assert asked("jobs") == (0, ("other.test", other))
    missing = run("--profile", "nope", "models")
    assert missing.code == 11
    assert "there are: shop" in missing.err


def test_the_shell_completes_commands_profiles_and_models(
    run: Command, add: Command, keyed: FarmApi, seen: list[tuple[str, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = keyed.key("default", Scope.READ)["Authorization"].removeprefix("Bearer ")
    add("shop", HERE, key)

    def completed(line: str) -> list[str]:
        with monkeypatch.context() as environment:
            environment.setenv("_IMAGEFARM_COMPLETE", "complete_bash")
            environment.setenv("COMP_WORDS", line)
            environment.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
            return run().out.split()

    assert completed("imagefarm pro") == ["profiles"]
    assert completed("imagefarm --profile sh") == ["shop"]
    assert completed("imagefarm --profile shop submit x --model de") == ["demo"]
    assert completed("imagefarm submit x --model de --url http://other.test --model de") == []  # refused: no key


@pytest.mark.process
@pytest.mark.parametrize("option", ["--show-completion", "--install-completion"])
def test_completion_is_shown_and_installed_for_bash(option: str, tmp_path: Path) -> None:
    line = f"{sys.executable} -m imagefarm {option} bash; code=$?; exit $code"
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(PROJECT_ROOT)}
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    script = done.stdout if option.startswith("--show") else next((tmp_path / ".bash_completions").iterdir()).read_text()
    assert "complete -o default -F" in script
