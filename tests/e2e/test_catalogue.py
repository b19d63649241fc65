"""From a product table to a delivered catalogue, on a real farm: dry run, canary, approval, drafts, picks, finals, channels,
ZIP, manifest and webhook; then three rows change and only those are rendered."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw
from standardwebhooks import Webhook

from imagefarm import Client
from imagefarm.settings import PROJECT_ROOT
from imagefarm.states import BatchState
from tests.e2e.up import Up, clean_environment
from tests.receiver import Receiver, receiving
from tests.waiting import until

PRODUCTS = ("mug", "bottle", "box", "t-shirt", "chair", "lamp")
COLOURS = {"red": (200, 40, 40), "blue": (40, 70, 200), "green": (40, 150, 60), "yellow": (230, 200, 50)}
BACKGROUNDS = ["white background", "blue background"]
TEMPLATE = "a {{ colour }} {{ product }}, {{ background }}"
CHANNELS = [
    {"name": "white", "width": 200, "height": 200, "margin": 0.05, "format": "png"},
    {"name": "story", "width": 90, "height": 160, "fit": "crop", "focus": "subject"},
    {"name": "light", "width": 256, "height": 256, "format": "webp", "max_bytes": 8000},
]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def photo(number: int) -> Image.Image:
    """A product cut out of its photo: a striped body, transparent around it."""
    colour = list(COLOURS.values())[number % len(COLOURS)]
    picture = Image.new("RGBA", (40, 48), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((6, 4, 33, 43), fill=(*colour, 255))
    for line in range(8, 40, 6):
        draw.line((6, line, 33, line + number % 5), fill=(250, 250, 250, 255))
    return picture


def write_table(folder: Path, rows: int, changed: int = 0) -> tuple[Path, Path]:
    """A table of products, half of them with a photo in a ZIP; `changed` rows name another product or colour."""
    table, archive = folder / f"table-{changed}.csv", folder / "photos.zip"
    colours = list(COLOURS)
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sku", "product", "colour", "subject"])
        for n in range(rows):
            colour = colours[(n + (1 if n < changed else 0)) % len(colours)]
            writer.writerow([f"P{rows}-{n:03}", PRODUCTS[n % len(PRODUCTS)], colour, f"photos/{n:03}.png" if n % 2 else ""])
    with zipfile.ZipFile(archive, "w") as pack:
        for n in range(1, rows, 2):
            with pack.open(f"photos/{n:03}.png", "w") as member:
                photo(n).save(member, "PNG")
    return table, archive


@pytest.mark.parametrize("rows", [6, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_a_catalogue(farm: Up, client: Client, receiver: Receiver, tmp_path: Path, rows: int) -> None:
    hook = httpx.post(f"{farm.url}/api/v1/webhooks", json={"url": receiver.url, "kinds": ["batch.done"]}).json()
    table, archive = write_table(tmp_path, rows)
    options: dict[str, Any] = {
        "template": TEMPLATE,
        "variants": {"background": BACKGROUNDS},
        "name": f"catalogue {rows} {tmp_path.name}",
        "model": "demo",
        "archive": archive,
        "gate": {"contrast": {"at_least": 3, "otherwise": "reroll"}, "subject": {"at_least": 1.0}},
    }
    quote = client.batches.submit(table, dry_run=True, **options).quote
    assert quote is not None
    assert quote.pictures == 2 * rows

    canary = client.batches.wait(client.batches.submit(table, canary=2, **options), timeout_s=300)
    assert (canary.state, canary.counts.succeeded) == (BatchState.HELD, 4)
    drafts = client.batches.wait(client.batches.approve(canary), timeout_s=600)
    # a gate may have had some rendered again
    assert drafts.counts.succeeded == drafts.counts.accepted >= 2 * rows
    pictures = [image for image in client.batches.images(drafts) if image.pick is None]
    assert len(pictures) == 2 * rows
    assert {(image.scores or {})["verdict"] for image in pictures} <= {"accept", "review"}
    with_photo = [image for image in pictures if image.row is not None and image.row % 2 == 0]
    assert {(image.scores or {})["subject"] for image in with_photo} == {1.0}

    # of each product the one on white; one is not good enough, and one is to look otherwise
    wanted = {image.id: "approve" for image in pictures if image.labels["background"] == BACKGROUNDS[0]}
    ids = list(wanted)
    wanted |= {ids[0]: "reject", ids[1]: "reroll"}
    client.batches.pick(drafts, wanted)
    drafts = client.batches.wait(drafts, timeout_s=120)
    again = [image for image in client.batches.images(drafts, pick="open") if image.from_image == ids[1]]
    seen = client.batches.pick(drafts, {again[0].id: "approve"})
    assert (seen.picks.approved, seen.picks.rejected) == (rows - 1, 1)

    finals = client.batches.wait(client.batches.finals(drafts, 128, 128, channels=CHANNELS), timeout_s=900)
    assert (finals.counts.succeeded, finals.counts.accepted) == (rows - 1, rows - 1)
    assert client.batches.finals(drafts, 128, 128, channels=CHANNELS).id == finals.id
    out = tmp_path / "finals"
    files = client.batches.download(finals, out)
    assert len(files) == 4 * (rows - 1) + 1
    manifest = list(csv.DictReader((out / "manifest.csv").read_text("utf-8-sig").splitlines()))
    assert len(manifest) == 4 * (rows - 1)
    for line in manifest:
        data = (out / line["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == line["sha256"]
        size = Image.open(out / line["file"]).size
        assert size == {"": (128, 128), "white": (200, 200), "story": (90, 160), "light": (256, 256)}[line["channel"]]
        assert line["channel"] != "light" or len(data) <= 8000
    check_subjects(out, [line for line in manifest if not line["channel"]])
    keep_sheet(out, manifest)

    # the shop gets messages about both, and can verify the sender
    def notified() -> set[str]:
        return {Webhook(hook["secret"]).verify(body, headers)["data"]["id"] for headers, body in receiver.got}

    until(lambda: {drafts.id, finals.id} <= notified(), "the shop is notified", 60)
    httpx.delete(f"{farm.url}/api/v1/webhooks/{hook['id']}")

    # three rows change: only those are rendered
    changed, _ = write_table(tmp_path, rows, changed=3)
    update = client.batches.submit(changed, archive=archive, update_of=drafts.id)
    assert update.model_dump()["changes"] == {"reused": 2 * rows - 6, "changed": 6, "new": 0, "unfinished": 0, "removed": 0}
    done = client.batches.wait(update, timeout_s=120)
    rendered = {job.labels["sku"] for job in client.jobs.list(batch=done.id) if job.attempt > 0}
    assert rendered == {f"P{rows}-{n:03}" for n in range(3)}


def check_subjects(out: Path, masters: list[dict[str, str]]) -> None:
    """Where a row has a photo, the product's opaque pixels are the photo's own."""
    found = 0
    for line in masters:
        number = int(line["sku"].split("-")[1])
        if number % 2 == 0:
            continue
        rgba = np.asarray(photo(number))[4:44, 6:34]
        master = np.asarray(Image.open(out / line["file"]).convert("RGB"))
        top, left = 64 - 20, 64 - 14  # placed in the middle
        assert np.array_equal(master[top : top + 40, left : left + 28], rgba[..., :3]), line["file"]
        found += 1
    assert found > 0


def keep_sheet(out: Path, manifest: list[dict[str, str]]) -> None:
    """The first finals with their channels side by side, where a person wants to look (CATALOGUE_SHEET names the file)."""
    if (target := os.environ.get("CATALOGUE_SHEET")) is None:
        return
    lines = manifest[: 4 * 8]
    sheet = Image.new("RGB", (4 * 210, len(lines) // 4 * 210), "grey")
    for place, line in enumerate(lines):
        picture = Image.open(out / line["file"]).convert("RGB")
        picture.thumbnail((200, 200))
        sheet.paste(picture, (place % 4 * 210 + 5, place // 4 * 210 + 5))
    sheet.save(target)


BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```$", (PROJECT_ROOT / "docs" / "catalogue.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
)


def test_the_page_for_shops(farm: Up, receiver: Receiver, tmp_path: Path) -> None:
    """Every command of docs/catalogue.md, one after the other, in one shell; and its Python on what then came."""
    (tmp_path / "examples").symlink_to(PROJECT_ROOT / "examples")
    command = tmp_path / "bin" / "imagefarm"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m imagefarm "$@"\n')
    command.chmod(0o755)
    script = "\n".join(text for kind, text in BLOCKS if kind == "sh").replace(
        "https://shop.example/hooks/imagefarm", receiver.url
    )
    environment = clean_environment(IMAGEFARM_URL=farm.url, PATH=f"{command.parent}:{os.environ['PATH']}")
    shell = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(shell, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "12 pictures" in done.stdout
    finals = tmp_path / "finals"
    assert len(list(finals.glob("*.png"))) == len(list((finals / "square").glob("*.jpg"))) == 12
    assert max(path.stat().st_size for path in (finals / "web").glob("*.webp")) <= 100_000
    until(lambda: len(receiver.got) > 0, "the shop is notified", 60)
    hook = httpx.get(f"{farm.url}/api/v1/webhooks").json()["items"][0]
    headers, body = receiver.got[0]
    [python] = [text for kind, text in BLOCKS if kind == "python"]
    values: dict[str, Any] = {
        "secret": json.loads((tmp_path / "hook.json").read_text("utf-8"))["secret"],
        "headers": headers,
        "body": body,
    }
    exec(python, values)
    assert values["message"]["type"] == "batch.done"
    httpx.delete(f"{farm.url}/api/v1/webhooks/{hook['id']}")
    shutil.rmtree(finals)
