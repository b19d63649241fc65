"""`make browser` on systems with each package manager, and what a run of the tests without Chromium says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from imagefarm.settings import PROJECT_ROOT
from tests import browser

BASH = shutil.which("bash")
pytestmark = pytest.mark.process
CHINESE = "NotoSansCJK.ttc"


def make_browser(folder: Path, *commands: str, uid: int = 0, font: str = "") -> tuple[int, str]:
    """The exit code and the output of the script where only these commands exist; each says how it was called."""
    folder = folder / "bin"
    folder.mkdir()
    scripts = {name: f'echo "{name} $*"' for name in commands}
    scripts |= {
        "id": f"echo {uid}",
        "uname": "echo Linux",
        "fc-list": f"echo {font}",
        "env": 'shift; "$@"',
        "sudo": 'echo "sudo $*"',
    }
    if uid and "sudo" not in commands:
        del scripts["sudo"]
    for name, text in scripts.items():
        (folder / name).write_text(f"#!{BASH}\n{text}\n")
        (folder / name).chmod(0o755)
    ran = subprocess.run(
        [str(BASH), PROJECT_ROOT / "tools" / "browser.sh"], env={"PATH": str(folder)}, capture_output=True, text=True, timeout=60
    )
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.usefixtures("starts_process")
@pytest.mark.parametrize(
    ("manager", "called"),
    [
        ("apt-get", "apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk"),
        ("dnf", "dnf install -y -q chromium google-noto-sans-cjk-fonts"),
        ("apk", "apk add --quiet chromium font-noto-cjk"),
        ("brew", "brew install --cask google-chrome"),
    ],
)
def test_each_package_manager(tmp_path: Path, manager: str, called: str) -> None:
    code, said = make_browser(tmp_path, manager)
    assert (code, said.splitlines()[-1]) == (0, called)


@pytest.mark.usefixtures("starts_process")
def test_what_is_there_is_not_installed_again(tmp_path: Path) -> None:
    assert make_browser(tmp_path, "chromium", "apt-get", font=CHINESE) == (
        0,
        "Chromium and a font with Chinese characters are installed already\n",
    )


@pytest.mark.usefixtures("starts_process")
def test_a_font_that_lacks_is_installed(tmp_path: Path) -> None:
    assert "fonts-noto-cjk" in make_browser(tmp_path, "chromium", "apt-get")[1]


@pytest.mark.usefixtures("starts_process")
def test_no_package_manager_and_no_root(tmp_path: Path) -> None:
    (tmp_path / "user").mkdir()
    code, said = make_browser(tmp_path)
    assert code == 1
    assert "install Chromium" in said
    code, said = make_browser(tmp_path / "user", "apt-get", uid=1000)
    assert code == 1
    assert "run it as root" in said


def test_without_chromium_tests_are_skipped_and_fail_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "find_chromium", lambda: None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception) as skipped:
        browser.require_chromium()
    report = SimpleNamespace(longrepr=("file", 1, f"Skipped: {skipped.value.msg}"))
    other = SimpleNamespace(longrepr=("file", 1, "Skipped: no GPU"))
    assert browser.skipped_line([report, other, report]) == (
        "2 browser tests were skipped: no Chromium found; `make browser` installs it"
    )
    assert browser.skipped_line([other]) == ""
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="make browser"):
        browser.require_chromium()


@pytest.mark.usefixtures("starts_process")
def test_the_last_line_of_a_run_without_chromium(tmp_path: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if name not in {"CI", "PATH"} and not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/api/pages/test_accessibility.py"]
    environment = bare | {"PATH": str(tmp_path)}
    ran = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert ran.stdout.splitlines()[-1].endswith("browser tests were skipped: no Chromium found; `make browser` installs it"), ran
