"""Latency and memory with many open pages, many jobs and many images.

python -m benchmarks.pages streams [--pages 500] [--seconds 20]
    The REST API's latency without open pages, then with `--pages` live pages open while jobs are submitted at the same rate; the
    time from a submit to each page that shows it; the process's memory before and after. A separate niced process reads the
    pages.
python -m benchmarks.pages large [--jobs 100000] [--pictures 10000]
    First paint, frames while scrolling and while picking by keyboard, traced in Chromium, of the list of jobs, the status page
    and one batch's contact sheet; its thumbnails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import httpx
from sqlalchemy import func, insert, select

from benchmarks.served import Served, database, quantile, serve
from imagefarm.catalogue import Catalogue
from imagefarm.ids import new_id
from imagefarm.output_store import LocalOutputStore, image_key
from imagefarm.recipe import JobRequest
from imagefarm.settings import PROJECT_ROOT
from imagefarm.states import JobState
from imagefarm.store import Store, db_now
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import Batch, Image, Job
from scheduler.queue.new_job import make_job

RATE = 25.0
"""Requests per second of the measurement. Every fifth submits a job, so the farm is equally busy without open pages."""
PAGES = ("/", "/jobs", "/", "/studio", "/", "/jobs?state=queued", "/", "/batches", "/", "job")
"""The open pages, in turn. `job` is the page of one job, of which there are `JOBS` different ones."""
JOBS = 20
LANGUAGES = ("en", "zh")
FILES = 200
"""Number of different image files; the others are links to them."""
CHUNK = 2000


# many pages


def rest(url: str, seconds: float, name: str) -> tuple[list[float], dict[str, float]]:
    """Latencies in ms of lists and single submits at a steady rate, in turn, and the submit time of each prompt. The rate drops
    if the
    API falls behind.
    """
    times: list[float] = []
    submitted: dict[str, float] = {}
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
        began = time.monotonic()
        for number in range(int(seconds * RATE)):
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            if time.monotonic() - began > 1.2 * seconds:
                break
            start = time.monotonic()
            if number % 5:
                answer = http.get("/api/v1/jobs?limit=20")
            else:
                prompt = f"mug-{name}-{number}."
                submitted[prompt] = start
                answer = http.post("/api/v1/jobs", json={"prompt": prompt})
            answer.raise_for_status()
            times.append(1000 * (time.monotonic() - start))
    return times, submitted


class OpenPage:
    """A page with its script: it follows its stream, and records when each prompt first appeared."""

    seen_texts: ClassVar[dict[int, frozenset[str]]] = {}
    """The prompts in a received page, by the page's hash, because five hundred readers get the same one."""

    def __init__(self, url: str, at: str, language: str) -> None:
        self.place, self.at, self.language = urlsplit(url), at, language
        self.prompts: dict[str, float] = {}
        self.open = False
        self.messages = self.bytes = 0

    async def follow(self) -> None:
        """Follow the stream until it ends."""
        reader, writer = await asyncio.open_connection(self.place.hostname, self.place.port)
        head = f"GET /live?at={quote(self.at, safe='')} HTTP/1.1\r\nHost: {self.place.netloc}\r\nAccept-Language: {self.language}"
        writer.write(f"{head}\r\n\r\n".encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert answer.split()[1] == "200", answer
        assert "transfer-encoding: chunked" in answer
        self.open = True
        while size := int(await reader.readline(), 16):
            text = (await reader.readexactly(size + 2))[:-2]
            if b"event: page\n" not in text:
                continue
            self.messages, self.bytes = self.messages + 1, self.bytes + len(text)
            now, known = time.monotonic(), hash(text)
            if known not in self.seen_texts:
                self.seen_texts[known] = frozenset(re.findall(r"mug-\w+-\d+\.", text.decode()))
            for prompt in self.seen_texts[known] - self.prompts.keys():
                self.prompts[prompt] = now


async def open_pages(url: str, pages: int, jobs: list[str]) -> None:
    """Keep `pages` pages open until SIGTERM; then print the updates of each page and their times."""
    os.nice(5)  # in production, readers do not share the farm's cores
    opened = []
    for number in range(pages):
        round_, kind = divmod(number, len(PAGES))
        at = f"/jobs/{jobs[round_ % len(jobs)]}" if PAGES[kind] == "job" else PAGES[kind]
        opened.append(OpenPage(url, at, LANGUAGES[round_ % 2]))
    following = []
    for page in opened:
        following.append(asyncio.create_task(page.follow()))
        await asyncio.sleep(0.01)
    while not all(page.open for page in opened):
        await asyncio.sleep(0.1)
        for task in following:
            if task.done():
                task.result()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    print("open", flush=True)
    await ended.wait()
    seen = [[page.at, page.messages, page.bytes, page.prompts] for page in opened]
    print(json.dumps({"seen": seen, "cpu_s": time.process_time()}), flush=True)
    os._exit(0)  # hundreds of open streams need no clean shutdown


def streams(pages: int, seconds: float) -> None:
    """Measure and print."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with (
        tempfile.TemporaryDirectory(prefix="farm-pages-") as name,
        database("sqlite", Path(name)) as url,
        serve(url, Path(name)) as served,
    ):
        jobs = [
            httpx.post(f"{served.url}/api/v1/jobs", json={"prompt": "watched"}, trust_env=False, timeout=30).json()["id"]
            for _ in range(JOBS)
        ]
        rest(served.url, 3, "warm")
        used, began = served.cpu_s(), time.monotonic()
        (idle, _), before = rest(served.url, seconds, "idle"), served.rss_mb()
        used_idle = (served.cpu_s() - used) / (time.monotonic() - began)
        command = [sys.executable, "-m", "benchmarks.pages", "hold", "--url", served.url, "--pages", str(pages), "--watch", *jobs]
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline().strip() == "open"
            rest(served.url, 3, "warmer")
            health = httpx.get(f"{served.url}/healthz", trust_env=False, timeout=30).status_code
            used, began = served.cpu_s(), time.monotonic()
            (loaded, submitted), after = rest(served.url, seconds, "loaded"), served.rss_mb()
            used = (served.cpu_s() - used) / (time.monotonic() - began)
            time.sleep(3)
            holder.send_signal(signal.SIGTERM)
            report = json.loads(holder.stdout.readline())
        finally:
            holder.kill()
            holder.wait()
    lists = [page for page in report["seen"] if page[0] in {"/", "/jobs", "/studio", "/jobs?state=queued"}]
    lags = [1000 * (prompts[prompt] - at) for _, _, _, prompts in lists for prompt, at in submitted.items() if prompt in prompts]
    missed = len(lists) * len(submitted) - len(lags)
    for what, times in (("idle", idle), (f"{pages} pages", loaded), ("on a page", lags)):
        shown = "  ".join(f"p{int(100 * q)} {quantile(times, q):6.1f} ms" for q in (0.5, 0.95, 0.99))
        print(f"{what:>12}: {shown}  most {max(times):6.1f} ms  ({len(times)} read)")
    print(
        f"on a page: from a job's submit to each page that shows it; {missed} of {missed + len(lags)} had left the newest before"
        f" the page was sent again; {sum(page[1] for page in report['seen'])} pages sent,"
        f" {sum(page[2] for page in report['seen']) / 1e6:.0f} MB"
    )
    print(
        f"p99 with {pages} pages open is {quantile(loaded, 0.99) / quantile(idle, 0.99):.2f} times the idle one;"
        f" healthz {health}; the API used {100 * used_idle:.0f} % of a core idle, {100 * used:.0f} % with the pages;"
        f" their readers {report['cpu_s']:.1f} s of CPU"
    )
    page_kb = 1000 * (after - before) / pages
    print(f"memory of the process: {before:.0f} MB before, {after:.0f} MB with the pages: {page_kb:.0f} kB a page")


# many jobs, many pictures


def fill(store: Store, served: Served, jobs: int, pictures: int) -> str:
    """Store finished jobs; the newest are a batch with its images. Returns the batch's id."""
    catalogue = Catalogue.read(PROJECT_ROOT / "models.toml")
    base = make_job(catalogue, JobRequest(prompt="a mug"), DEFAULT_TENANT, costs={}).columns()
    outputs = LocalOutputStore(served.settings.outputs)
    keys, digests = _files(served, outputs)
    batch_id = new_id("batch")
    with store.write() as session:
        batch = {
            "id": batch_id,
            "tenant_id": DEFAULT_TENANT,
            "name": "Ten thousand",
            "state": "done",
            "template": "",
            "options": {},
        }
        session.execute(
            insert(Batch).values(**batch, rows=pictures, accepted=pictures, rejected=0, errors=[], created_at=db_now())
        )
    for start in range(0, jobs, CHUNK):
        rows: list[dict[str, Any]] = []
        images: list[dict[str, Any]] = []
        for number in range(start, min(jobs, start + CHUNK)):
            in_batch = number >= jobs - pictures
            row = base | {
                "id": new_id("job"),
                "prompt": f"a mug in the colour no. {number}",
                "state": str(JobState.SUCCEEDED),
                "batch_id": batch_id if in_batch else None,
                "name": f"SKU-{number:06d}" if in_batch else None,
                "row": number if in_batch else None,
                "created_at": time.time(),
                "started_at": time.time(),
                "finished_at": time.time(),
            }
            rows.append(row)
            if in_batch:
                key = image_key(row["id"], 0, 1)
                target = served.settings.outputs / key
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(served.settings.outputs / keys[number % FILES], target)
                images.append(_image_row(row["id"], key, digests[number % FILES]))
        with store.write() as session:
            session.execute(insert(Job), rows)
            if images:
                session.execute(insert(Image), images)
    return batch_id


def _files(served: Served, outputs: LocalOutputStore) -> tuple[list[str], list[str]]:
    import hashlib

    import numpy as np

    from imagefarm.imaging.png import encode_png

    keys, digests = [], []
    for number in range(FILES):
        colour = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
        data = encode_png(np.kron(colour, np.ones((64, 64, 1), np.uint8)), {})
        keys.append(f"made/{number}.png")
        outputs.write(keys[-1], data)
        digests.append(hashlib.sha256(data).hexdigest())
    return keys, digests


def _image_row(job_id: str, key: str, digest: str) -> dict[str, Any]:
    return {
        "id": new_id("img"), "job_id": job_id, "tenant_id": DEFAULT_TENANT, "index": 0, "seed": "1", "storage_key": key,
        "format": "png", "width": 512, "height": 512, "bytes": 1, "sha256": digest, "pixel_sha256": digest, "ms": 1.0,
        "audit": {}, "created_at": time.time(),
    }  # fmt: skip


WATCH = """() => {
  const seen = window.seen = { frames: 0, gap: 0, over: 0, moved: 0, long: 0, last: performance.now(), at: scrollY, on: true };
  const frame = now => {
    const gap = now - seen.last;
    seen.frames += 1; seen.gap = Math.max(seen.gap, gap); seen.over += gap > 100 ? 1 : 0; seen.last = now;
    seen.moved += Math.abs(scrollY - seen.at); seen.at = scrollY;
    if (seen.on) requestAnimationFrame(frame);
  };
  requestAnimationFrame(now => { seen.last = now; requestAnimationFrame(frame); });
  new PerformanceObserver(list => { for (const e of list.getEntries()) seen.long = Math.max(seen.long, e.duration); })
    .observe({ type: "long-animation-frame" });
}"""
"""Counts the page's frames. It requests each next frame, because a page without changes draws none, which would look like a
stall."""


@contextmanager
def traced(page: Any) -> Iterator[dict[str, float]]:
    """Trace the block in Chromium and count its frames. Afterwards the yielded dict has the frames, the longest time between two,
    the
    number above 100 ms, the longest animation frame, the scrolled distance, and the main thread's longest task, in ms.
    """
    session = page.context.new_cdp_session(page)
    events: list[dict[str, Any]] = []
    finished: list[bool] = []
    session.on("Tracing.dataCollected", lambda data: events.extend(data["value"]))
    session.on("Tracing.tracingComplete", lambda _: finished.append(True))
    session.send("Tracing.start", {"categories": "toplevel", "transferMode": "ReportEvents"})
    page.evaluate(WATCH)
    answer: dict[str, float] = {}
    yield answer
    answer |= page.evaluate("() => { seen.on = false; return seen; }")
    session.send("Tracing.end")
    while not finished:
        page.wait_for_timeout(50)
    mains = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name" and e["args"]["name"] == "CrRendererMain"}
    tasks = [e for e in events if (e["pid"], e["tid"]) in mains and e["name"].endswith("RunTask")]
    answer |= {
        "task": max((task.get("dur", 0) / 1000 for task in tasks), default=0.0),
        "cpu": max((task.get("tdur", 0) / 1000 for task in tasks), default=0.0),
    }


def scroll(page: Any) -> None:
    """Turn the wheel for about 10 s, back and forth where the page is short, then in large jumps."""
    end = page.evaluate("document.documentElement.scrollHeight - innerHeight")
    at, way = 0, 1
    for number in range(240):
        step = 600 if number < 200 else 4000
        if not 0 <= at + way * step <= end:
            way = -way
        at = min(max(at + way * step, 0), end)
        page.mouse.wheel(0, way * step)
        page.wait_for_timeout(33)


def choose(page: Any) -> None:
    """Decide a hundred images by keyboard, as fast as a held key repeats."""
    page.locator(".vgrid").focus()
    page.keyboard.press("Home")
    for _ in range(50):
        page.keyboard.press("a")
        page.wait_for_timeout(30)
        page.keyboard.press("x")
        page.wait_for_timeout(30)


def look(browser: Any, what: str, url: str, ready: str, *, sheet: bool = False) -> None:
    """Print the time to paint a page, its scrolling and, for a contact sheet, its picks and the loading of its images."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    thumbs: list[Any] = []
    page.on("response", lambda response: thumbs.append(response) if "?thumb=" in response.url else None)
    began = time.monotonic()
    page.goto(url)
    page.locator(ready).first.wait_for()
    seconds = time.monotonic() - began
    page.wait_for_timeout(1500)
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    print(f"{what:>14}: first paint {paint:.0f} ms, shown after {1000 * seconds:.0f} ms", flush=True)
    page.mouse.move(640, 600)
    for doing, act in (("scrolling", scroll), ("picks by keyboard", choose))[: 1 + sheet]:
        with traced(page) as trace:
            act(page)
        print(
            f"{doing:>32}: {trace['frames']:.0f} frames, the longest {trace['gap']:.0f} ms, {trace['over']:.0f} over 100 ms;"
            f" longest animation frame {trace['long']:.0f} ms, longest task {trace['task']:.0f} ms ({trace['cpu']:.0f} of CPU);"
            f" {trace['moved']:,.0f} pixels moved",
            flush=True,
        )
    contents = f"{page.evaluate('document.querySelectorAll(`*`).length'):,} elements"
    if thumbs:
        sizes = [int(response.headers.get("content-length", 0)) for response in thumbs]
        kinds = sorted(
            {(response.headers["content-type"], response.headers["cache-control"]) for response in thumbs if response.ok}
        )
        contents += f"; {len(thumbs)} thumbnails of {max(sizes) / 1000:.1f} kB at most, {kinds}"
    print(f"{'at the end':>32}: {contents}", flush=True)
    page.close()


def large(jobs: int, pictures: int) -> None:
    """Measure and print."""
    from playwright.sync_api import sync_playwright

    with (
        tempfile.TemporaryDirectory(prefix="farm-pages-") as name,
        database("sqlite", Path(name)) as url,
        serve(url, Path(name)) as served,
        sync_playwright() as playwright,
    ):
        store = Store(url, pool_size=2)
        began = time.monotonic()
        batch = fill(store, served, jobs, pictures)
        with store.read() as session:
            held = session.scalar(select(func.count()).select_from(Job))
        print(f"{held:,} jobs, {pictures:,} pictures in one batch, made in {time.monotonic() - began:.0f} s", flush=True)
        store.close()
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        look(browser, "list of jobs", f"{served.url}/jobs", ".row")
        look(browser, "status", f"{served.url}/", ".card")
        look(browser, "contact sheet", f"{served.url}/batches/{batch}", ".vgrid .cell img[src]", sheet=True)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("streams", "large", "hold"))
    parser.add_argument("--pages", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--url")
    parser.add_argument("--watch", nargs="*", default=[], help="jobs whose own pages are held open")
    given = parser.parse_args()
    if given.what == "streams":
        streams(given.pages, given.seconds)
    elif given.what == "large":
        large(given.jobs, given.pictures)
    else:
        asyncio.run(open_pages(given.url, given.pages, given.watch))


if __name__ == "__main__":
    main()
