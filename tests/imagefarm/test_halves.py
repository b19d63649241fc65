"""The two wheels: the client's half imports nothing of the server's, and the server's commands are known by name without it."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import typer

import imagefarm
from imagefarm import cli
from imagefarm.catalogue import Catalogue
from imagefarm.cli import groups, local_farm, server_half
from imagefarm.cli.server_half import SERVER_COMMANDS
from imagefarm.settings import PROJECT_ROOT, load_settings, shipped
from tests.imagefarm.cli.test_commands import Command, run

__all__ = ["run"]

LIBRARIES = {"httpx", "pydantic", "rich", "typer"}
WITH_HTTPX = {"anyio"}


def halves() -> ModuleType:
    spec = importlib.util.spec_from_file_location("halves", PROJECT_ROOT / "packages" / "halves.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def client_files() -> list[Path]:
    is_client = halves().is_client
    found = (file.relative_to(PROJECT_ROOT) for file in sorted((PROJECT_ROOT / "imagefarm").rglob("*.py")))
    return [file for file in found if is_client(file)]


def imported(file: Path) -> set[str]:
    """Every module that a file imports, inside functions and for type checks, too; `from a import b` counts a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((PROJECT_ROOT / file).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def file_of(module: str) -> Path | None:
    base = PROJECT_ROOT / Path(*module.split("."))
    found = next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)
    return found and found.relative_to(PROJECT_ROOT)


def test_the_client_imports_its_own_half_and_four_libraries() -> None:
    is_client, files = halves().is_client, client_files()
    assert {Path("imagefarm/client/client.py"), Path("imagefarm/cli/jobs.py"), Path("imagefarm/recipe.py")} <= set(files)
    strangers = set()
    for file in files:
        for name in imported(file):
            top = name.partition(".")[0]
            if top == "imagefarm":
                target = file_of(name)
                allowed = target is None or is_client(target)  # None: a name in a module, which is imported, too
            else:
                allowed = top in LIBRARIES | WITH_HTTPX or top in sys.stdlib_module_names
            if not allowed:
                strangers.add((str(file), name))
    assert strangers == set()


def test_both_wheels_are_of_one_version_and_say_what_they_need() -> None:
    server = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    client = tomllib.loads((PROJECT_ROOT / "packages" / "client" / "pyproject.toml").read_text("utf-8"))["project"]
    assert (client["name"], server["name"]) == ("imagefarm", "imagefarm-server")
    assert client["version"] == server["version"] == imagefarm.__version__
    assert f"imagefarm=={imagefarm.__version__}" in server["dependencies"]
    assert {line.partition(">")[0] for line in client["dependencies"]} == LIBRARIES
    assert set(client["dependencies"]) - set(server["dependencies"]) == {"rich>=13.9"}, "one library, one lower bound"


@pytest.fixture
def without_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line as it is where imagefarm-server is not installed."""
    monkeypatch.setattr(groups, "server_half", lambda: None)
    monkeypatch.setattr("imagefarm.cli.models.server_half", lambda: None)
    monkeypatch.setattr(cli, "app", groups.make_app(groups.groups()))


def commands(app: typer.Typer) -> set[str]:
    def names(command: object, path: str) -> set[str]:
        inner = getattr(command, "commands", {})
        return {path} | {name for word, more in inner.items() for name in names(more, f"{path} {word}".strip())}

    return names(typer.main.get_command(app), "") - {""}


def test_the_servers_commands_are_those_that_are_missing_without_it(without_server: None) -> None:
    light, whole = commands(groups.make_app(groups.groups())), commands(groups.app)
    missing = whole - light
    assert {name for name in missing if name.rpartition(" ")[0] not in missing} == SERVER_COMMANDS


@pytest.mark.parametrize("words", [["up"], ["worker", "--device", "cpu"], ["models", "pull", "demo"], ["keys", "list"]])
def test_without_the_server_its_commands_say_how_to_install_it(run: Command, without_server: None, words: list[str]) -> None:
    outcome = run(*words)
    assert outcome.code == 3
    assert "pip install 'imagefarm-server[worker]'" in outcome.err
    assert outcome.err.count("\n") == 1
    assert f"  {words[0]} " not in run("--help").out or words[0] == "models"


def test_without_the_server_and_a_farm_there_are_no_models(
    run: Command, without_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagefarm.cli.connection.RETRIES", 0)
    outcome = run("models", "--url", "http://127.0.0.1:9")
    assert (outcome.code, "is the farm running?" in outcome.err) == (8, True)


@pytest.mark.parametrize(
    ("file", "variable"),
    [("", None), ('data_dir = "here"\n', None), ('data_dir = "here"\nlease_s = 45\n', "there"), (None, None), (None, "~/there")],
)
def test_the_client_finds_the_data_folder_that_the_server_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str | None, variable: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMAGEFARM_DATA_DIR", raising=False)
    if file is not None:
        Path("imagefarm.toml").write_text(file)
    if variable is not None:
        monkeypatch.setenv("IMAGEFARM_DATA_DIR", variable)
    assert local_farm.data_folder() == load_settings().data_dir


def test_the_catalogue_is_looked_for_here_then_in_the_data_folder_then_among_what_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    settings = load_settings(data_dir=data)
    assert settings.catalogue_file == shipped("models.toml")
    assert shipped("models.toml").is_file()
    (data / "models.toml").touch()
    assert settings.catalogue_file == data / "models.toml"
    Path("models.toml").touch()
    assert settings.catalogue_file == tmp_path / "models.toml"
    assert load_settings(data_dir=data, models_file=tmp_path / "own.toml").catalogue_file == tmp_path / "own.toml"


def test_a_catalogue_elsewhere_still_finds_the_demo_model(tmp_path: Path) -> None:
    shutil.copy(shipped("models.toml"), tmp_path)
    elsewhere = Catalogue.read(tmp_path / "models.toml")
    assert elsewhere.local_path("models/demo") == shipped("models/demo")
    (tmp_path / "models" / "demo").mkdir(parents=True)
    assert elsewhere.local_path("models/demo") == tmp_path / "models" / "demo"
    assert elsewhere.local_path("Tongyi-MAI/Z-Image-Turbo") is None


def test_the_server_is_found_by_its_name() -> None:
    found = server_half.server_half()
    assert found is not None
    assert found.__name__ == server_half.MODULE
