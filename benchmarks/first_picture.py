"""The first picture of an idle farm: how much longer than the bare pipeline call a caller waits for it, demo model, in turns.

    python -m benchmarks.first_picture [--pictures 100] [--idle 2]

Each turn: the farm has been idle for a while; a new prompt goes through the bare pipeline, and another one of the same
length through `POST /api/v1/jobs` with `Prefer: wait`, until the answer names the picture. The overhead is the
difference of the two within a turn. Goals: 40 ms in the median, 120 ms at the 99th percentile.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from benchmarks.bare_loop import BareLoop
from imagefarm.store.models import Attempt, Image, Job
from tests.e2e.up import Up


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def through_farm(client: httpx.Client, prompt: str, seed: int) -> tuple[float, dict[str, Any]]:
    """Wall milliseconds from the request to the response with the image."""
    started = time.perf_counter()
    response = client.post("/api/v1/jobs", json={"prompt": prompt, "seed": seed}, headers={"Prefer": "wait=30"})
    took = 1000 * (time.perf_counter() - started)
    job = response.raise_for_status().json()
    if job["state"] != "succeeded":
        raise SystemExit(f"the job is {job['state']}: {job['error']}")
    return took, job


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--idle", type=float, default=2.0, help="seconds without work before each picture")
    asked = parser.parse_args()
    bare: list[float] = []
    farm: list[float] = []
    stages: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loop = BareLoop(folder / "loop")
        up = Up(folder / "farm").until_ready()
        try:
            store = up.store()
            with httpx.Client(base_url=up.url, trust_env=False, timeout=60) as client:
                for number in range(-2, asked.pictures):
                    # not a multiple of any of the farm's intervals
                    time.sleep(asked.idle + 0.0137 * (number % 41))
                    called = 1000 * loop.picture(f"a red mug number {number:05} alone", number + 10)
                    waited, job = through_farm(client, f"a red mug number {number:05} there", number + 10)
                    if number < 0:
                        continue
                    bare.append(called)
                    farm.append(waited)
                    with store.read() as session:
                        row = session.get_one(Job, job["id"])
                        claimed = session.scalar(select(Attempt.claimed_at).where(Attempt.job_id == row.id))
                        image = session.scalars(select(Image).where(Image.job_id == row.id)).one()
                    assert claimed is not None
                    audit = image.audit
                    made = audit["encode_ms"] + audit["denoise_ms"] + audit["decode_ms"]
                    stages.append(
                        {
                            "admitted to claimed": 1000 * (claimed - row.created_at),
                            "in the model": made,
                            "claimed to stored, less the model": audit["timings_ms"]["claim_to_stored"] - made,
                            "the rest (request, commit, response)": waited
                            - 1000 * (claimed - row.created_at)
                            - audit["timings_ms"]["claim_to_stored"],
                        }
                    )
            store.close()
        finally:
            up.close()
    over = [there - alone for there, alone in zip(farm, bare, strict=True)]
    middle, high = statistics.median(over), percentile(over, 0.99)
    print(f"{asked.pictures} pictures, {asked.idle:g} s idle before each, in turns; milliseconds")
    print(f"  bare call       p50 {statistics.median(bare):7.1f}   p99 {percentile(bare, 0.99):7.1f}")
    print(f"  through REST    p50 {statistics.median(farm):7.1f}   p99 {percentile(farm, 0.99):7.1f}")
    print(f"  overhead        p50 {middle:7.1f}   p99 {high:7.1f}   (goals 40 and 120)")
    for stage in stages[0]:
        values = [line[stage] for line in stages]
        print(f"    {stage:<36} p50 {statistics.median(values):7.1f}   p99 {percentile(values, 0.99):7.1f}")
    return 0 if middle < 40 and high < 120 else 1


if __name__ == "__main__":
    sys.exit(main())
