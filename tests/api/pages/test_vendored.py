"""The vendored files have the versions and hashes of VENDORED.md."""

import hashlib
import re

from api.pages.assets import FOLDER


def test_every_vendored_file_has_the_hash_that_is_written_down() -> None:
    folder = FOLDER / "vendor"
    told = dict(re.findall(r"^\| `([^`]+)` .*`([0-9a-f]{64})` \|$", (folder / "VENDORED.md").read_text("utf-8"), re.MULTILINE))
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.suffix in {".js", ".css"}
    }
    assert found == told


def test_every_licence_is_there() -> None:
    for name in set(re.findall(r"LICENSE\.\w+", (FOLDER / "vendor" / "VENDORED.md").read_text("utf-8"))):
        assert (FOLDER / "vendor" / name).stat().st_size > 300
