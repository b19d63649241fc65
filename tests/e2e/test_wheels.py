"""Both wheels, as somebody installs them: each into an environment of its own, and a farm in an empty folder."""

from __future__ import annotations

import re
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefarm.settings import PROJECT_ROOT
from tests.e2e.up import READY, START_S, clean_environment
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SOURCES = (
    "api", "examples", "imagefarm", "migrations", "models", "packages", "scheduler", "worker",
    "LICENSE", "README.md", "models.toml", "pyproject.toml", "setup.py",
)  # fmt: skip
MAX_START_S = 1.0


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels by name, built from a copy of the tree."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheels")
    for name in SOURCES:
        if (PROJECT_ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
            shutil.copytree(PROJECT_ROOT / name, tree / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(PROJECT_ROOT / name, tree / name)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out)]
    subprocess.run([*pip, "./packages/client", "."], cwd=tree, check=True)
    return {wheel.name.partition("-")[0]: wheel for wheel in out.glob("*.whl")}


class Installed:
    """An environment with wheels installed, and nothing of this checkout."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self.folder = folder

    def pip(self, *words: str | Path) -> None:
        command = [self.folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "-q", *words]
        subprocess.run(command, check=True, env=self.environment)

    def borrow_libraries(self) -> None:
        """Have the libraries of this environment, torch and all, without what its .pth files add."""
        purelib = subprocess.run(
            [self.folder / "bin" / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        (Path(purelib) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    @property
    def environment(self) -> dict[str, str]:
        kept = clean_environment()
        del kept["PYTHONPATH"]
        return kept | {"PATH": f"{self.folder / 'bin'}:{kept['PATH']}"}

    def run(self, *words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        command = [self.folder / "bin" / "imagefarm", *words]
        return subprocess.run(command, cwd=cwd, env=self.environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def client(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The client alone, its four libraries fetched as anybody's."""
    made = Installed(tmp_path_factory.mktemp("client") / "env")
    made.pip("install", "-c", PROJECT_ROOT / "constraints.txt", wheels["imagefarm"])
    return made


@pytest.fixture(scope="module")
def farm_url(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A farm that `imagefarm up` runs in an empty folder."""
    made = Installed(tmp_path_factory.mktemp("server") / "env")
    made.borrow_libraries()
    made.pip("install", "--no-deps", *wheels.values())
    folder = tmp_path_factory.mktemp("empty")
    with (folder.parent / "up.log").open("w+") as log:
        command = [made.folder / "bin" / "imagefarm", "up", "--port", "0"]
        process = subprocess.Popen(command, cwd=folder, env=made.environment, stdout=log, stderr=subprocess.STDOUT)
        try:

            def said() -> list[str]:
                return Path(log.name).read_text("utf-8").splitlines()

            until(lambda: any(map(READY.match, said())) or process.poll() is not None, "the ready line", START_S)
            found = next(filter(None, map(READY.match, said())), None)
            assert found is not None, said()
            yield found[1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)
    assert [path.name for path in folder.iterdir()] == ["data"]


def test_no_file_is_in_both(wheels: dict[str, Path]) -> None:
    files = {name: set(zipfile.ZipFile(wheel).namelist()) for name, wheel in wheels.items()}
    assert files.keys() == {"imagefarm", "imagefarm_server"}
    assert files["imagefarm"] & files["imagefarm_server"] == set()
    tops = {file.partition("/")[0] for file in files["imagefarm"]}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"imagefarm"}
    sources = {
        str(file.relative_to(PROJECT_ROOT))
        for name in ("imagefarm", "api", "scheduler", "worker", "migrations")
        for file in (PROJECT_ROOT / name).rglob("*")
        if file.is_file() and file.suffix not in {".pyc", ".po", ".pot"}
    }
    assert sources - files["imagefarm"] - files["imagefarm_server"] == set(), "each file is in one of the wheels"
    assert {"imagefarm/py.typed", "imagefarm/client/client.py"} <= files["imagefarm"]
    assert {"imagefarm/shipped/models.toml", "api/static/farm.css", "migrations/script.py.mako"} <= files["imagefarm_server"]


def test_the_client_alone_talks_to_an_installed_farm(client: Installed, farm_url: str, tmp_path: Path) -> None:
    packages = subprocess.run(
        [client.folder / "bin" / "python", "-m", "pip", "list"],
        capture_output=True, text=True, check=True, env=client.environment,
    ).stdout.lower()  # fmt: skip
    assert not re.search(r"^(flask|celery|sqlalchemy|torch|redis|imagefarm-server)\b", packages, re.MULTILINE)
    made = client.run(
        "submit", "a red mug, white background", "--seed", "42", "--url", farm_url, "--out", "pictures", cwd=tmp_path
    )
    assert made.returncode == 0, made.stderr
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 1
    listed = client.run("jobs", "--url", farm_url, cwd=tmp_path)
    assert (listed.returncode, "a red mug, white background" in listed.stdout) == (0, True), listed.stderr
    refused = client.run("up", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
    assert "pip install 'imagefarm-server[worker]'" in refused.stderr


def test_listing_jobs_takes_less_than_a_second(client: Installed, farm_url: str, tmp_path: Path) -> None:
    walls, cpus = [], []
    for _ in range(5):
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        assert client.run("jobs", "--url", farm_url, cwd=tmp_path).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        walls.append(time.monotonic() - began)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print(f"imagefarm jobs: {min(walls):.2f} s, of which {min(cpus):.2f} s on the CPU")
    assert min(cpus) < MAX_START_S, "on a busy machine, only the processor's own time tells"
