"""Which files of this tree go into which wheel: `imagefarm` (the client and its command line) or `imagefarm-server` (the rest).

The setup.py of each half uses it, so no file is in both wheels and none is in neither. A test holds the client's half against
what it imports.
"""

from __future__ import annotations

import shutil
from pathlib import Path, PurePath

from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent.parent
CLIENT_PACKAGES = ["imagefarm", "imagefarm.cli", "imagefarm.client", "imagefarm.client.*", "imagefarm.imaging"]
"""Packages of which the client's half has files, as setuptools.find_packages takes them."""
CLIENT_FILES = (
    "imagefarm/__init__.py",
    "imagefarm/__main__.py",
    "imagefarm/py.typed",
    "imagefarm/errors.py",
    "imagefarm/messages.py",
    "imagefarm/recipe.py",
    "imagefarm/states.py",
    "imagefarm/text.py",
    "imagefarm/version.py",
    "imagefarm/imaging/__init__.py",
    "imagefarm/imaging/formats.py",
    "imagefarm/cli/*.py",
    "imagefarm/client/*.py",
    "imagefarm/client/*/*.py",
)
"""The client's half, as patterns of paths."""
SHIPPED = ("models.toml", "models/demo", "examples/products.csv")
"""Files that come with the server besides its packages. In its wheel they are below imagefarm/shipped."""


def is_client(path: PurePath) -> bool:
    """True if the file at this path of the tree belongs to the client's half."""
    return any(len(path.parts) == pattern.count("/") + 1 and path.match(pattern) for pattern in CLIENT_FILES)


class _BuildHalf(build_py):
    """Builds one half of the packages that both share."""

    client = False

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        modules = super().find_package_modules(package, package_dir)
        return [module for module in modules if self._is_mine(module[2])]

    def find_data_files(self, package: str, src_dir: str) -> list[str]:
        return [file for file in super().find_data_files(package, src_dir) if self._is_mine(file)]

    def _is_mine(self, file: str) -> bool:
        return is_client(Path(file).resolve().relative_to(ROOT)) == self.client


class BuildClient(_BuildHalf):
    """Builds the client's half."""

    client = True


class BuildServer(_BuildHalf):
    """Builds the server's half, with the catalogue, the demo model and the demo's table."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name in SHIPPED:
            source, target = ROOT / name, Path(self.build_lib) / "imagefarm" / "shipped" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copyfile(source, target)
