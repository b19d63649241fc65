"""Builds the server's half of the tree; pyproject.toml has everything else. packages/client builds the other half."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).resolve().parent / "packages"))

from halves import BuildServer

setup(cmdclass={"build_py": BuildServer})
