"""Z-Image-Turbo at full size with random weights: speed and memory are real, pictures are noise. Needs a GPU of 40 GiB.

    python benchmarks/full_size_z_image.py [--sizes 1024 512] [--max-images 1 4 8] [--images 16]
    python benchmarks/full_size_z_image.py --tiny        the same path with the tests' tiny model on the CPU, to see that it runs

The engine and the plain diffusers pipeline take turns in one process over the same weights, prompts and seeds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from transformers import Qwen3Config, Qwen3Model

from imagefarm.catalogue import Catalogue
from imagefarm.logs import configure_logs
from imagefarm.model_entry import ModelEntry
from imagefarm.recipe import JobRequest
from imagefarm.settings import PROJECT_ROOT, load_settings
from scheduler.queue.claim import ClaimedJob
from worker.engine.engine import StepEngine
from worker.families.z_image import ZImage
from worker.models.embeddings import EmbeddingCache
from worker.models.loading import LoadedPipeline, modules
from worker.models.loras import LoraSet
from worker.weights.digests import WeightDigests

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests import tiny_pipelines

Way = Callable[[list[ClaimedJob]], None]
STEPS = 8
QWEN3_4B: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "tie_word_embeddings": True,
}
VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 16,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


def full_size(device: torch.device) -> ZImagePipeline:
    """The released architecture (6.15 B, Qwen3-4B, VAE) in bfloat16, made on the device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            torch.manual_seed(0)
            transformer = ZImageTransformer2DModel(axes_lens=[1536, 512, 512]).eval()
            encoder, vae = Qwen3Model(Qwen3Config(**QWEN3_4B)).eval(), AutoencoderKL(**VAE).eval()
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(4)  # a random decoder draws almost flat grey, which the guards would retry
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=encoder,
        tokenizer=tiny_pipelines.byte_tokenizer(),
        transformer=transformer,
    )


def loaded(pipe: ZImagePipeline, entry: ModelEntry, catalogue: Catalogue, device: torch.device) -> LoadedPipeline:
    for module in modules(pipe).values():
        module.requires_grad_(False)
    return LoadedPipeline(
        name=entry.name,
        entry=entry,
        family=ZImage(pipe, device, entry),
        device=device,
        dtype=pipe.transformer.dtype,
        digest="random",
        encoder_digest="random",
        facts={},
        load_s=0.0,
        bytes=sum(parameter.nbytes for module in modules(pipe).values() for parameter in module.parameters()),
        loras=LoraSet(pipe, entry, catalogue, WeightDigests()),
    )


def jobs(entry: ModelEntry, catalogue: Catalogue, side: int, count: int) -> list[ClaimedJob]:
    made = []
    for number in range(count):
        request = JobRequest(
            prompt=f"a product on a white background, view {number}",
            model=entry.name,
            width=side,
            height=side,
            steps=STEPS,
            seed=number,
        )
        recipe, _ = catalogue.resolve(request)
        made.append(
            ClaimedJob(
                id=f"job_{number}",
                attempt=1,
                owner="benchmark",
                model=entry.name,
                compat_key=entry.compat_key(recipe),
                recipe=recipe,
                recipe_hash=recipe.recipe_hash,
                count=1,
                priority_class="bulk",
                tenant_id="benchmark",
                batch_id=None,
                custom_id=None,
                labels={},
                cost_s=1.0,
                crashes=0,
                expires_at=None,
            )
        )
    return made


def bare_loop(pipeline: LoadedPipeline, todo: list[ClaimedJob]) -> None:
    for job in todo:
        recipe = job.recipe
        pipeline.family.pipe(
            recipe.prompt,
            width=recipe.width,
            height=recipe.height,
            num_inference_steps=recipe.steps,
            guidance_scale=recipe.guidance,
            generator=torch.Generator("cpu").manual_seed(recipe.seed),
        )


def through_engine(pipeline: LoadedPipeline, max_images: int, todo: list[ClaimedJob]) -> None:
    pipeline.embeddings = EmbeddingCache()
    engine, waiting = StepEngine(pipeline, max_images=max_images), list(todo)
    while waiting or engine.jobs:
        while waiting and engine.room:
            engine.add(waiting.pop(0))
        report = engine.step()
        if report.failed:
            raise SystemExit(f"failed: {report.failed[0].failure}")
        remarks = [image.facts["remarks"] for job in report.rendered for image in job.images if image.facts["remarks"]]
        if remarks:
            raise SystemExit(f"the guards stepped in, so the times mean nothing: {remarks[0]}")


def timed(device: torch.device, way: Way, todo: list[ClaimedJob]) -> tuple[float, float]:
    """Wall seconds, and peak memory in GiB."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    way(todo)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    return time.perf_counter() - started, peak


def step_flops(pipeline: LoadedPipeline, side: int) -> float:
    """Floating-point operations of one step for one image: two per weight and token, plus attention's two products."""
    transformer = pipeline.family.pipe.transformer
    tokens = (side // 16) ** 2 + 64
    layers, width = transformer.config.n_layers + transformer.config.n_refiner_layers, transformer.config.dim
    weights = sum(parameter.numel() for parameter in transformer.parameters())
    return 2.0 * weights * tokens + 4.0 * layers * width * tokens**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 512])
    parser.add_argument("--max-images", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tflops", type=float, default=790.0, help="what the device reaches in bfloat16, for the utilisation")
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    configure_logs(load_settings(log_level="error"), "benchmark")
    if not asked.tiny and not torch.cuda.is_available():
        raise SystemExit("no CUDA device: this benchmark has not been run; see --tiny")
    if asked.tiny:
        torch.set_num_threads(1)
    device = torch.device("cpu" if asked.tiny else "cuda")
    catalogue = Catalogue.read(PROJECT_ROOT / "models.toml")
    entry = catalogue.get("z-image-turbo")
    pipe = tiny_pipelines.z_image() if asked.tiny else full_size(device)
    pipe.set_progress_bar_config(disable=True)
    pipeline = loaded(pipe, entry, catalogue, device)
    name = "CPU, tiny model" if asked.tiny else torch.cuda.get_device_name(device)
    print(f"{name}, torch {torch.__version__}, {pipeline.bytes / 2**30:.1f} GiB of weights")
    print(f"{asked.images} images a round of {STEPS} steps, {asked.rounds} rounds in turns")
    print(f"{'size':>6}  {'':<20}{'images/s':>10}{'x':>7}{'MFU %':>8}{'peak GiB':>10}{'one image s':>13}")
    for side in asked.sizes:
        todo = jobs(entry, catalogue, side, asked.images)
        ways: dict[str, Way] = {"bare pipeline loop": partial(bare_loop, pipeline)}
        ways |= {f"engine, {most} images": partial(through_engine, pipeline, most) for most in asked.max_images}
        for way in ways.values():
            way(todo[:2])
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(asked.rounds):
            for name, way in ways.items():
                times[name].append(timed(device, way, todo))
        base = [wall for wall, _ in times["bare pipeline loop"]]
        for name, way in ways.items():
            one = statistics.median(timed(device, way, todo[:1])[0] for _ in range(3))
            walls = [wall for wall, _ in times[name]]
            rate = asked.images / statistics.median(walls)
            ratio = statistics.median(slow / fast for slow, fast in zip(base, walls, strict=True))
            used = rate * STEPS * step_flops(pipeline, side) / (asked.tflops * 1e12) * 100
            peak = max(memory for _, memory in times[name])
            print(f"{side:>6}  {name:<20}{rate:>10.2f}{ratio:>7.2f}{used:>8.1f}{peak:>10.1f}{one:>13.3f}")


if __name__ == "__main__":
    main()
