"""Photograph every page: a farm renders a table, Chromium opens each page wide and narrow, light and dark.

    make screenshots        # python -m tools.screenshots docs/screenshots

Writes `<page>-<wide|narrow>-<light|dark>.webp`. The list of pages is fixed, so a removed page is noticed.
"""

from __future__ import annotations

import argparse
import io
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
from PIL import Image

from imagefarm import Client
from imagefarm.cli.server.demo import demo_settings
from imagefarm.supervisor.farm import EmbeddedFarm

WIDTHS = {"wide": (1280, 800), "narrow": (390, 780)}
SCHEMES = ("light", "dark")
MAX_HEIGHT = {"wide": 1500, "narrow": 1600}
QUALITY = 72
TEMPLATE = "{{ product }}, {{ background }}"
TABLE = Path(__file__).resolve().parent.parent / "examples" / "products.csv"
COLOURS = ("red", "blue", "green", "yellow", "purple", "orange", "black", "white", "pink", "brown")
THINGS = ("mug", "bottle", "bag", "chair", "t-shirt", "lamp", "shoe")


@dataclass(frozen=True)
class Seed:
    """Ids of the objects that the pages show."""

    batch: str
    job: str


def pages(seed: Seed) -> dict[str, str]:
    """The address of every page, by name. Pages that look best during rendering come first."""
    return {
        "status": "/",
        "admin": "/admin",
        "admin-workers": "/admin/workers",
        "batches": "/batches",
        "studio": "/studio",
        "batch": f"/batches/{seed.batch}",
        "jobs": "/jobs",
        "job": f"/jobs/{seed.job}",
        "lookup": "/lookup",
        "getting-started": "/getting-started",
        "docs": "/docs",
        "sign-in": "/sign-in",
        "admin-keys": "/admin/keys",
        "admin-users": "/admin/users",
        "admin-webhooks": "/admin/webhooks",
        "admin-audit": "/admin/audit",
        "admin-settings": "/admin/settings",
    }


@contextmanager
def small_farm() -> Iterator[EmbeddedFarm]:
    """A farm that shares nothing with another one. Its data is deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="farm-"))
    farm = EmbeddedFarm(demo_settings(folder / "data").model_copy(update={"max_body_bytes": 8 * 1024 * 1024}))
    try:
        farm.start()
        yield farm
    finally:
        farm.stop()
        shutil.rmtree(folder, ignore_errors=True)


def seed(client: Client, url: str, folder: Path) -> Seed:
    """A finished batch with some picks, single jobs, a key, a webhook, and a batch that is being rendered."""
    table = folder / "spring.csv"
    table.write_text("\n".join(["sku,product,background", *_rows("")]) + "\n", "utf-8")
    client.batches.submit(TABLE, template=TEMPLATE, name="products.csv", seed=7)
    batch = client.batches.wait(client.batches.submit(table, template=TEMPLATE, name="Spring catalogue", seed=7))
    images = [image.id for image in client.batches.images(batch)]
    picks: dict[str, Literal["approve", "reject", "reroll", "clear"]]
    picks = dict.fromkeys(images[::3], "approve") | dict.fromkeys(images[7::11], "reject")
    client.batches.pick(batch, picks)
    with httpx.Client(base_url=url, trust_env=False) as http:
        http.post("/api/v1/keys", json={"name": "shop importer", "tenant": "shop"}).raise_for_status()
        for name, role, tenant in (("mei", "operator", "default"), ("jonas", "member", "shop"), ("print-room", "viewer", "shop")):
            user = {"name": name, "role": role, "tenant": tenant, "password": secrets.token_urlsafe(16)}
            http.post("/api/v1/users", json=user).raise_for_status()
        hook = {"url": "https://1.1.1.1/imagefarm", "kinds": ["batch.stopped"]}
        http.post("/api/v1/webhooks", json=hook).raise_for_status()
    later = folder / "autumn.csv"
    lines = [row for season in ("AUTUMN-", "WINTER-", "SALE-", "GIFT-") for row in _rows(season)]
    later.write_text("\n".join(["sku,product,background", *lines]) + "\n", "utf-8")
    client.batches.submit(later, template=TEMPLATE, name="Autumn catalogue", seed=11)
    # interactive jobs run before the large batch and are the newest
    for prompt in ("白色背景上的红色马克杯", "a blue bottle, yellow background", "a green lamp on a white background"):
        client.jobs.wait(client.jobs.submit(prompt, seed=42, count=4), check=True)
    job = client.jobs.wait(client.jobs.submit("a purple chair on a white background", seed=5, count=2), check=True)
    return Seed(batch.id, job.id)


def _rows(prefix: str) -> list[str]:
    return [
        f"{prefix}{thing}-{colour}".upper() + f",a {colour} {thing},{'yellow' if colour == 'white' else 'white'} background"
        for thing in THINGS
        for colour in COLOURS
    ]


def photograph(browser: Any, url: str, *, width: str, scheme: str, lang: str) -> Image.Image:
    """The whole page, up to a maximum height."""
    context = browser.new_context(
        viewport={"width": WIDTHS[width][0], "height": WIDTHS[width][1]}, color_scheme=scheme, locale=lang
    )
    page = context.new_page()
    page.goto(url)
    page.wait_for_load_state("load")
    page.wait_for_timeout(900)  # live mark, lazy pictures, charts
    height = min(MAX_HEIGHT[width], page.evaluate("document.documentElement.scrollHeight"))
    page.set_viewport_size({"width": WIDTHS[width][0], "height": max(height, WIDTHS[width][1])})
    page.wait_for_timeout(500)
    data = page.screenshot(animations="disabled")
    context.close()
    return Image.open(io.BytesIO(data)).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="names of pages")
    parser.add_argument("--lang", default="en-US")
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    arguments.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with small_farm() as farm, Client(farm.url) as client, sync_playwright() as playwright:
        seeded = seed(client, farm.url, farm.settings.data_dir)
        print(f"seeded after {time.monotonic() - began:.0f} s", file=sys.stderr)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        total = 0
        for name, path in pages(seeded).items():
            if arguments.only and name not in arguments.only:
                continue
            for width in WIDTHS:
                for scheme in SCHEMES:
                    file = arguments.out / f"{name}-{width}-{scheme}.webp"
                    shot = photograph(browser, farm.url + path, width=width, scheme=scheme, lang=arguments.lang)
                    shot.save(file, "WEBP", quality=QUALITY, method=6)
                    total += file.stat().st_size
        browser.close()
    print(f"{total / 1e6:.2f} MB in {arguments.out}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
