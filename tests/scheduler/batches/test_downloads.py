"""Downloads of a batch: manifest, archive, rows to correct. They are safe for a spreadsheet and exact for a program."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefarm.output_store import LocalOutputStore
from scheduler.batches.export.archive import stream_zip
from scheduler.batches.export.manifest import Entry
from scheduler.queue.finish import FinishedImage, fail, succeed
from scheduler.queue.retry import Failure, FailureClass
from tests.scheduler.batches.conftest import BulkFarm

INPUT = Failure(FailureClass.INPUT, "bad_input", "=the model cannot take it")


def render(farm: BulkFarm, failing: str = "") -> dict[str, bytes]:
    """Render all that is queued into real files; jobs with `failing` in their prompt fail. The files by storage key."""
    outputs = LocalOutputStore(farm.settings.outputs)
    files = {}
    while jobs := farm.claim("wrk_a", images=16):
        for job in jobs:
            if failing and failing in job.recipe.prompt:
                fail(farm.store, job, INPUT, farm.settings)
                continue
            images = []
            for index in range(job.count):
                key, data = f"jobs/{job.id}/{index}.png", f"picture {job.recipe.prompt} {index}".encode()
                outputs.write(key, data)
                files[key] = data
                digest = hashlib.sha256(data).hexdigest()
                seed = job.recipe.seed_of(index)
                images.append(FinishedImage(index, seed, key, "png", 64, 64, len(data), digest, digest, 1.0))
            succeed(farm.store, job, images, actual_s=0.1)
    return files


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))


def test_manifest_names_every_picture(farm: BulkFarm) -> None:
    table = "sku,prompt,count\nA,mug,1\nB,cup,2\nC,broken,1\n"
    batch = farm.batch(table, seeds="row", seed=10)["id"]
    render(farm, failing="broken")
    late = farm.batch("sku,prompt\nD,bowl\n")["id"]
    found = rows(farm.get(batch, "/manifest.csv").text)
    assert [(row["row"], row["sku"], row["file"], row["seed"], row["state"]) for row in found] == [
        ("1", "A", "A.png", "11", "succeeded"),
        ("2", "B", "B-1.png", "12", "succeeded"),
        ("2", "B", "B-2.png", "13", "succeeded"),
        ("3", "C", "", "13", "failed"),
    ]
    assert found[0]["sha256"] == hashlib.sha256(b"picture mug 0").hexdigest()
    assert found[3]["reason"] == "'=the model cannot take it"
    lines = [json.loads(line) for line in farm.get(batch, "/manifest.jsonl").text.splitlines()]
    assert [line["file"] for line in lines] == [row["file"] for row in found]
    assert lines[3]["reason"] == "=the model cannot take it"
    assert rows(farm.get(late, "/manifest.csv").text)[0]["state"] == "queued"


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", '=cmd|"/c calc"!A1'])
def test_no_cell_is_a_formula(quick_farm: BulkFarm, cell: str) -> None:
    quoted = '"' + cell.replace('"', '""') + '"'
    batch = quick_farm.batch(
        f"sku,custom_id,prompt,{quoted}\n{quoted},{quoted},mug,\nB,x,,{quoted}\n", on_error="skip", name_pattern="{row}"
    )["id"]
    for what in ("/manifest.csv", "/errors.csv"):
        for record in csv.reader(io.StringIO(quick_farm.get(batch, what).text.removeprefix("\ufeff"))):
            assert not [found for found in record if found.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert rows(quick_farm.get(batch, "/manifest.csv").text)[0]["sku"] == "'" + cell


def test_bad_rows_come_back_and_can_be_sent_again(farm: BulkFarm) -> None:
    table = 'sku,name,steps,note\nA,mug,4,"-5%, now"\nB,cup,many,=x\nC,broken bowl,4,plain\nD,,4,\n'
    batch = farm.batch(table, template="a {{ name }}", on_error="skip")["id"]
    render(farm, failing="broken")
    text = farm.get(batch, "/errors.csv").text
    found = rows(text)
    assert [(row["sku"], row["steps"], row["error_row"]) for row in found] == [
        ("B", "many", "2"),
        ("C", "4", "3"),
        ("D", "4", "4"),
    ]
    assert found[0]["error"].startswith("steps: ")
    assert found[1]["error"] == "bad_input: =the model cannot take it"
    assert found[0]["note"] == "'=x"
    mended = text.replace("many", "4").replace("D,,", "D,dish,")
    again = farm.batch(mended, template="a {{ name }} {{ note|default('') }}", labels="note")
    assert again["counts"]["accepted"] == 3
    jobs = rows(farm.get(again["id"], "/manifest.csv").text)
    assert [job["sku"] for job in jobs] == ["B", "C", "D"]
    first = farm.job(jobs[0]["job"])
    assert (first.prompt, first.labels["note"]) == ("a cup =x", "=x")  # the apostrophe of the export is taken back
    header = farm.get(again["id"], "/errors.csv").text.removeprefix("\ufeff").splitlines()[0]
    assert header == "sku,name,steps,note,error_row,error"


def test_the_archive_holds_the_pictures_and_their_manifest(farm: BulkFarm) -> None:
    table = "sku,prompt,count\nA/../../x,mug,1\nB,cup,2\nC,broken,1\n"
    batch = farm.batch(table, name='Spring "sale"/..')["id"]
    files = render(farm, failing="broken")
    response = farm.get(batch, "/archive.zip")
    assert (response.status_code, response.mimetype) == (200, "application/zip")
    assert response.headers["Content-Disposition"] == 'attachment; filename="Spring-sale.zip"'
    with zipfile.ZipFile(io.BytesIO(response.data)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names == ["A-.-.-x.png", "B-1.png", "B-2.png", "manifest.csv"]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        listed = rows(archive.read("manifest.csv").decode("utf-8"))
        for row in listed:
            if row["file"]:
                assert hashlib.sha256(archive.read(row["file"])).hexdigest() == row["sha256"]
        assert [row["file"] for row in listed] == ["A-.-.-x.png", "B-1.png", "B-2.png", ""]
        assert sorted(archive.read(name) for name in names[:3]) == sorted(files.values())


def test_a_lost_file_is_told_in_the_manifest(quick_farm: BulkFarm) -> None:
    batch = quick_farm.batch("sku,prompt\nA,mug\nB,cup\n")["id"]
    files = render(quick_farm)
    LocalOutputStore(quick_farm.settings.outputs).delete(next(iter(files)))
    with zipfile.ZipFile(io.BytesIO(quick_farm.get(batch, "/archive.zip").data)) as archive:
        assert archive.namelist() == ["B.png", "manifest.csv"]
        lost = rows(archive.read("manifest.csv").decode("utf-8"))[0]
    assert (lost["file"], lost["reason"]) == ("", "its file is gone from the store")


def test_pictures_without_a_name_are_called_by_custom_id_or_job(quick_farm: BulkFarm) -> None:
    batch = quick_farm.batch("prompt,custom_id\nmug,my id\ncup,\n")["id"]
    render(quick_farm)
    one, two = rows(quick_farm.get(batch, "/manifest.csv").text)
    assert one["file"] == "my-id.png"
    assert two["file"] == f"{two['job']}.png"


def test_the_archive_is_made_in_constant_memory(tmp_path: Path) -> None:
    outputs = LocalOutputStore(tmp_path)
    outputs.write("big.png", b"\x00" * 4_000_000)

    def found() -> Iterator[Entry]:
        for n in range(50):
            yield Entry(n, "s", f"n{n}", f"n{n}.png", "1", "0" * 64, "succeeded", "", "job", "", "big.png", 4_000_000, 1e9)

    tracemalloc.start()
    size = sum(len(piece) for piece in stream_zip(found(), outputs))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 200_000_000
    assert peak < 4_000_000


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("Spring", 'filename="Spring-manifest.csv"'),
        ("春季 目录", "filename=\"manifest.csv\"; filename*=UTF-8''%E6%98%A5%E5%AD%A3-%E7%9B%AE%E5%BD%95-manifest.csv"),
        ("Été/2026", "filename=\"t--2026-manifest.csv\"; filename*=UTF-8''%C3%89t%C3%A9-2026-manifest.csv"),
        ('a"\r\nb', 'filename="a-b-manifest.csv"'),
    ],
)
def test_downloads_keep_their_letters(quick_farm: BulkFarm, name: str, header: str) -> None:
    batch = quick_farm.batch("prompt\nmug\n", name=name)["id"]
    found = quick_farm.get(batch, "/manifest.csv").headers["Content-Disposition"]
    assert found == f"attachment; {header}"
    assert quick_farm.get(batch, "/archive.zip").headers["Content-Disposition"].isascii()
