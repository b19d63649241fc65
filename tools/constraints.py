"""Write constraints.txt: the exact versions, in this environment, of all packages that the project's extras need.

`make constraints` runs it after a deliberate upgrade. Installed packages that no extra needs are left out, and so are local
version
tags such as torch's `+cpu`, which differ between machines.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECTS = ("imagefarm", "imagefarm-server")
EXTRAS = ("postgres", "bucket", "worker", "int8", "test")
HEADER = "# Written by `make constraints`: every version that the tests ran with.\n"


def needed(project: str, extras: tuple[str, ...]) -> dict[str, str]:
    """Versions by name of everything that `project[extras]` needs, as installed here; missing ones are left out."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(project, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        if name not in PROJECTS:
            found[name] = package.version.partition("+")[0]
        for line in package.requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                wanted = canonicalize_name(requirement.name)
                waiting += [(wanted, more) for more in ("", *requirement.extras)]
    return found


def main() -> None:
    target = Path(sys.argv[1])
    lines = [f"{name}=={version}\n" for name, version in sorted(needed("imagefarm-server", EXTRAS).items())]
    target.write_text(HEADER + "".join(lines), "utf-8")


if __name__ == "__main__":
    main()
