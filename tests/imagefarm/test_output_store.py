"""Output storage: keys stay inside, files are whole or absent, leftovers are collected."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imagefarm.output_store import LocalOutputStore, UnsafeKey, image_key

JOB = "job_01JD0000000000000000000000"


@pytest.fixture
def outputs(tmp_path: Path) -> LocalOutputStore:
    return LocalOutputStore(tmp_path / "outputs", owner="wrk_test")


def test_what_is_written_is_read_and_walked(outputs: LocalOutputStore) -> None:
    key = image_key(JOB, 0, 1)
    outputs.write(key, b"picture")
    assert outputs.read(key) == b"picture"
    with outputs.open(key) as file:
        assert file.read() == b"picture"
    assert [stored.key for stored in outputs.walk()] == [key]
    assert [stored.key for stored in outputs.walk("jobs")] == [key]


def test_attempts_of_a_job_never_share_a_file() -> None:
    keys = {image_key(JOB, index, attempt) for index in range(12) for attempt in range(1, 12)}
    assert len(keys) == 12 * 11


@pytest.mark.parametrize(
    "key",
    [
        "",
        ".",
        "..",
        "/etc/passwd",
        "../escaped.png",
        "jobs/../../escaped.png",
        "jobs/./a.png",
        "jobs//a.png",
        "jobs/a.png/",
        "jobs\\..\\a.png",
        "jobs/a\x00.png",
        "jobs/a\n.png",
        "jobs/.hidden",
        ".tmp/wrk_other-1",
        "jobs/" + "a" * 129,
        "a/" * 300 + "a",
        "jobs/ünïcode.png",
        "C:/a.png",
    ],
)
def test_hostile_keys_are_refused_by_every_operation(outputs: LocalOutputStore, key: str) -> None:
    for operation in (
        lambda: outputs.write(key, b""),
        lambda: outputs.read(key),
        lambda: outputs.open(key),
        lambda: outputs.path(key),
        lambda: outputs.delete(key),
    ):
        with pytest.raises(UnsafeKey, match="not a relative path"):
            operation()
    assert not list(outputs.root.parent.rglob("*escaped*"))


def test_delete_takes_the_file_and_its_empty_folder(outputs: LocalOutputStore) -> None:
    first, second = image_key(JOB, 0, 1), image_key(JOB, 1, 1)
    outputs.write(first, b"1")
    outputs.write(second, b"2")
    assert outputs.delete(first)
    assert outputs.read(second) == b"2"
    assert outputs.delete(second)
    assert not outputs.path(first).parent.exists()
    assert not outputs.delete(second)


def test_a_failed_write_leaves_nothing(outputs: LocalOutputStore) -> None:
    outputs.write("jobs/a", b"a file where a folder is needed")
    with pytest.raises(OSError, match="Not a directory|exists"):
        outputs.write("jobs/a/b.png", b"x")
    assert not list((outputs.root / ".tmp").iterdir())


@pytest.mark.process
def test_a_writer_killed_at_any_moment_leaves_whole_files_only(outputs: LocalOutputStore) -> None:
    script = (
        "import itertools, sys; from pathlib import Path; from imagefarm.output_store import LocalOutputStore\n"
        "store = LocalOutputStore(Path(sys.argv[1]), 'wrk_doomed')\n"
        "for n in itertools.count(): store.write(f'jobs/aa/{n}.png', b'x' * 200_000); print(n, flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(outputs.root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = [int(process.stdout.readline()) for _ in range(20)][-1]
    process.kill()
    process.wait()
    files = {stored.key: outputs.path(stored.key).stat().st_size for stored in outputs.walk()}
    assert set(files.values()) == {200_000}
    assert {f"jobs/aa/{n}.png" for n in range(acknowledged + 1)} <= set(files)


def test_only_old_temporary_files_are_collected(outputs: LocalOutputStore) -> None:
    folder = outputs.root / ".tmp"
    folder.mkdir(parents=True)
    for name, age in (("wrk_dead-1", 600), ("wrk_alive-2", 0)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    assert outputs.collect_temporary(older_than_s=300) == 1
    assert [path.name for path in folder.iterdir()] == ["wrk_alive-2"]
    assert list(outputs.walk()) == []
