"""The step engine against a bare `ZImagePipeline` loop: the same images of the demo model, in turns, in one process.

    python benchmarks/engine_vs_loop.py [--images 64] [--prompts 16] [--max-images 8 16] [--rounds 3]

Both sides make PIL-ready pixels from text; none writes files. The rounds alternate, so that a busy machine slows both.
CPU seconds of the thread are compared beside wall seconds: they do not depend on who else uses the cores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from imagefarm.catalogue import Catalogue
from imagefarm.logs import configure_logs
from imagefarm.recipe import JobRequest
from imagefarm.settings import PROJECT_ROOT, load_settings
from scheduler.queue.claim import ClaimedJob
from worker.engine.engine import StepEngine
from worker.models.embeddings import EmbeddingCache
from worker.models.loading import LoadedPipeline, load_pipeline

THINGS = ("mug", "vase", "lamp", "chair", "bottle", "box", "bowl", "cup")
COLOURS = ("red", "blue", "green", "yellow", "white", "black")


def prompts(count: int) -> list[str]:
    """`count` different prompts."""
    return [
        f"a {COLOURS[number % len(COLOURS)]} {THINGS[number // len(COLOURS) % len(THINGS)]} on a white background, take {number}"
        for number in range(count)
    ]


def requests(images: int, distinct: int) -> list[JobRequest]:
    texts = prompts(distinct)
    return [JobRequest(prompt=texts[number % distinct], seed=number) for number in range(images)]


def bare_loop(pipeline: LoadedPipeline, asked: list[JobRequest]) -> int:
    """The baseline script: one call after another."""
    pipe, default = pipeline.family.pipe, pipeline.entry.defaults
    made = 0
    for request in asked:
        made += len(
            pipe(
                request.prompt,
                width=default.width,
                height=default.height,
                num_inference_steps=default.steps,
                guidance_scale=default.guidance,
                generator=torch.Generator("cpu").manual_seed(request.seed or 0),
            ).images
        )
    return made


def through_engine(pipeline: LoadedPipeline, catalogue: Catalogue, asked: list[JobRequest], max_images: int) -> int:
    """Continuous batching: a job joins as soon as there is a place."""
    pipeline.embeddings = EmbeddingCache()
    engine = StepEngine(pipeline, max_images=max_images)
    waiting = [claimed(catalogue, number, request) for number, request in enumerate(asked)]
    made = 0
    while waiting or engine.jobs:
        while waiting and engine.room:
            engine.add(waiting.pop())
        report = engine.step()
        if report.failed:
            raise SystemExit(f"failed: {report.failed[0].failure}")
        made += sum(len(job.images) for job in report.rendered)
    return made


def claimed(catalogue: Catalogue, number: int, request: JobRequest) -> ClaimedJob:
    recipe, _ = catalogue.resolve(request)
    return ClaimedJob(
        id=f"job_{number}",
        attempt=1,
        owner="benchmark",
        model=recipe.model,
        compat_key=catalogue.get(recipe.model).compat_key(recipe),
        recipe=recipe,
        recipe_hash=recipe.recipe_hash,
        count=1,
        priority_class="bulk",
        tenant_id="benchmark",
        batch_id=None,
        custom_id=None,
        labels={},
        cost_s=0.1,
        crashes=0,
        expires_at=None,
    )


def timed(work: Callable[[], int]) -> tuple[float, float]:
    """Wall and CPU seconds per image."""
    wall, cpu = time.perf_counter(), time.thread_time()
    made = work()
    return (time.perf_counter() - wall) / made, (time.thread_time() - cpu) / made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=16, help="distinct prompts among the images")
    parser.add_argument("--max-images", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    configure_logs(load_settings(log_level="error"), "benchmark")
    catalogue = Catalogue.read(PROJECT_ROOT / "models.toml")
    pipeline = load_pipeline(catalogue.get(asked.model), catalogue, device=asked.device)
    todo = requests(asked.images, asked.prompts)
    bare_loop(pipeline, todo[:2])
    through_engine(pipeline, catalogue, todo[:4], 4)

    loop: list[tuple[float, float]] = []
    engine: dict[int, list[tuple[float, float]]] = {most: [] for most in asked.max_images}
    for _ in range(asked.rounds):
        loop.append(timed(lambda: bare_loop(pipeline, todo)))
        for most, times in engine.items():
            times.append(timed(lambda most=most: through_engine(pipeline, catalogue, todo, most)))  # type: ignore[misc]

    print(f"{asked.images} images, {asked.prompts} prompts, {asked.rounds} rounds in turns, medians per image")
    print(f"{'':<22}{'wall ms':>9}{'CPU ms':>9}{'x wall':>9}{'x CPU':>9}")
    wall, cpu = (statistics.median(times) for times in zip(*loop, strict=True))
    print(f"{'bare pipeline loop':<22}{wall * 1e3:>9.1f}{cpu * 1e3:>9.1f}{1:>9.2f}{1:>9.2f}")
    for most, times in engine.items():
        # round by round, so that a slow round affects both sides
        walls = statistics.median(one[0] / other[0] for one, other in zip(loop, times, strict=True))
        cpus = statistics.median(one[1] / other[1] for one, other in zip(loop, times, strict=True))
        here = [statistics.median(column) * 1e3 for column in zip(*times, strict=True)]
        print(f"{f'engine, {most} images':<22}{here[0]:>9.1f}{here[1]:>9.1f}{walls:>9.2f}{cpus:>9.2f}")


if __name__ == "__main__":
    main()
