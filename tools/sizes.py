"""Report the lengths of files and functions and the sizes of folders, and fail where one is over its limit.

python -m tools.sizes            the four figures, and each file, function or folder that is over a limit
python -m tools.sizes --top 20   the longest ones besides
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limit:
    """Upper bounds of one measure: of its 90th percentile and of its largest value, in lines or in files."""

    what: str
    p90: int | None
    longest: int


FILES = Limit("file (lines)", 250, 450)
FUNCTIONS = Limit("function (lines)", 20, 80)
FOLDERS = Limit("folder (.py files)", None, 24)

MIGRATIONS = Path("migrations/versions")

Measured = list[tuple[int, str]]
"""(size, place) of each thing that was measured."""


def python_files() -> list[Path]:
    """The project's Python files, as git knows them. Migrations are left out, because they list every table."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for path in map(Path, listed.stdout.splitlines()) if path.is_file() and path.parent != MIGRATIONS]


def function_sizes(path: Path, source: str) -> Measured:
    """The lines of each function and method, from `def` to its last line."""
    return [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{path}:{node.lineno}: {node.name}")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def measure(paths: Sequence[Path]) -> dict[Limit, Measured]:
    sources = {path: path.read_text("utf-8") for path in paths}
    folders = Counter(path.parent for path in paths)
    return {
        FILES: [(len(source.splitlines()), str(path)) for path, source in sources.items()],
        FUNCTIONS: [size for path, source in sources.items() for size in function_sizes(path, source)],
        FOLDERS: [(number, str(folder)) for folder, number in folders.items()],
    }


def percentile_90(measured: Measured) -> int:
    sizes = sorted(size for size, _ in measured)
    return sizes[min(len(sizes) - 1, int(len(sizes) * 0.9))] if sizes else 0


def faults(limit: Limit, measured: Measured) -> list[str]:
    """One line for each size in `measured` that is over `limit`."""
    found = [
        f"{place}: {size}, at most {limit.longest}" for size, place in sorted(measured, reverse=True) if size > limit.longest
    ]
    p90 = percentile_90(measured)
    if limit.p90 is not None and p90 > limit.p90:
        found.append(f"{limit.what}: nine of ten have at most {p90}, the limit is {limit.p90}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--top", type=int, default=0, help="also list the longest ones, this many of each kind")
    chosen = parser.parse_args(arguments)
    over = []
    for limit, measured in measure(python_files()).items():
        print(f"{limit.what}: {len(measured)}, p90 {percentile_90(measured)}, longest {max(measured)[0]}")
        for size, place in sorted(measured, reverse=True)[: chosen.top]:
            print(f"  {size:4} {place}")
        over += faults(limit, measured)
    print(*over, sep="\n", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
