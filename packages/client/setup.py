"""Builds the client's half of the tree above; pyproject.toml has everything else."""

import sys
from pathlib import Path

from setuptools import find_packages, setup

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from halves import CLIENT_PACKAGES, BuildClient

setup(
    cmdclass={"build_py": BuildClient},
    packages=find_packages("../..", include=CLIENT_PACKAGES),
    package_dir={"": "../.."},
    package_data={"imagefarm": ["py.typed"]},
)
