"""A batch's images as one ZIP, streamed by the API process: the growth of that process's memory.

python -m benchmarks.archive --pictures 2000 --kb 1000
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import tempfile
import time
import zipfile
from contextlib import ExitStack
from pathlib import Path

import httpx

from benchmarks.bulk_submit import Memory, free_port, redis, running, wait_until_ready
from imagefarm.output_store import LocalOutputStore, image_key
from imagefarm.settings import load_settings
from imagefarm.store import Store
from imagefarm.store.migrate import migrate
from imagefarm.supervisor import services
from scheduler.queue.claim import ClaimLimits, claim
from scheduler.queue.finish import FinishedImage, succeed


def render_all(store: Store, outputs: LocalOutputStore, size: int) -> int:
    """Finish every queued job, each with a file of `size` random bytes; return the number of jobs."""
    done = 0
    while jobs := claim(store, "wrk_a", serves=["demo"], resident=["demo"], limits=ClaimLimits(images=64, quantum_s=1000.0)):
        for job in jobs:
            data, key = os.urandom(size), image_key(job.id, 0, job.attempt)
            outputs.write(key, data)
            digest = hashlib.sha256(data).hexdigest()
            succeed(store, job, [FinishedImage(0, job.recipe.seed, key, "png", 64, 64, size, digest, digest, 1.0)], actual_s=0.1)
            done += 1
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--kb", type=int, default=1000, help="size of each picture")
    arguments = parser.parse_args()
    for variable in [name for name in os.environ if name.startswith("IMAGEFARM_")]:
        del os.environ[variable]
    with tempfile.TemporaryDirectory(prefix="archive-") as name, ExitStack() as stack:
        folder = Path(name)
        settings = load_settings(
            data_dir=folder / "data", redis_url=stack.enter_context(redis(folder)), port=free_port(), log_level="warning"
        )
        store = Store(settings.database, pool_size=2)
        stack.callback(store.close)
        migrate(store)
        api = stack.enter_context(running(settings, services.api(), folder / "api.log"))
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=600))
        wait_until_ready(client, api, folder / "api.log")
        table = "sku,prompt\n" + "".join(f"SKU-{n:05d},mug {n}\n" for n in range(arguments.pictures))
        batch = client.post("/api/v1/batches", content=table, headers={"Content-Type": "text/csv"}).raise_for_status().json()
        pictures = render_all(store, LocalOutputStore(settings.outputs), 1000 * arguments.kb)
        before = Memory(api.pid).peaks_mb()[0]
        started, received, tail = time.perf_counter(), 0, b""
        with client.stream("GET", batch["urls"]["archive"]) as response:
            for piece in response.iter_raw(1024 * 1024):
                received += len(piece)
                tail = (tail + piece)[-4_000_000:]
        seconds, after = time.perf_counter() - started, Memory(api.pid).peaks_mb()[0]
        with zipfile.ZipFile(io.BytesIO(tail)) as archive:
            names = len(archive.namelist())
        print(
            f"{pictures} pictures, {received / 1e6:.0f} MB in {seconds:.1f} s; the API's largest process: "
            f"{before:.0f} MB at most before, {after:.0f} MB after; {names} files in the ZIP (the manifest is one)"
        )


if __name__ == "__main__":
    main()
