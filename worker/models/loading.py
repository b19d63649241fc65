"""From the files of a model to a pipeline on the device: checked, hashed, and of known classes only."""

from __future__ import annotations

import os

# the libraries read these at import: a worker must not fetch anything or run code that came with weights
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DIFFUSERS_DISABLE_REMOTE_CODE", "1")

import importlib.metadata
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
import transformers

from imagefarm.catalogue import Catalogue
from imagefarm.errors import RenderError
from imagefarm.logs import get_logger
from imagefarm.model_entry import ModelEntry
from worker.failures import failure_of, is_out_of_memory
from worker.families import family_class
from worker.families.base import Family
from worker.memory.capabilities import unavailable_tiers
from worker.memory.micro_batch_limits import MicroBatchLimits
from worker.memory.offload import EncoderSwap, apply_offload
from worker.memory.planner import ACTIVATIONS, FIDELITY, STREAMED, STREAMED_BLOCKS, OffloadMode, Tier, Weights
from worker.memory.sizes import DENOISERS, ENCODERS
from worker.memory.weights import module_bytes, narrow
from worker.models.acceleration import Acceleration, AccelerationSettings
from worker.models.device import find_device, pick_dtype
from worker.models.embeddings import EmbeddingCache
from worker.models.loras import LoraSet
from worker.upscalers.nets import Upscalers
from worker.weights.digests import WeightDigests, check_pins, combined
from worker.weights.model_files import ModelFiles, find_files

diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()
log = get_logger(__name__)

LOADING = threading.Lock()
"""from_pretrained patches torch for the whole process while it runs."""
DIGESTS = WeightDigests()
LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "pillow", "peft")


@dataclass(slots=True, eq=False, repr=False)
class LoadedPipeline:
    """A model that is ready to render."""

    name: str
    entry: ModelEntry
    family: Family
    device: torch.device
    dtype: torch.dtype
    digest: str
    """Digest of all weight files and their names."""
    encoder_digest: str
    """Digest of the text encoder and tokenizer alone. Models that share them share embeddings."""
    facts: dict[str, Any]
    load_s: float
    bytes: int
    """Bytes of all weights on the device, at the peak."""
    loras: LoraSet
    upscalers: Upscalers
    acceleration: Acceleration
    tier: Tier = Tier.RESIDENT
    encoder_swap: EncoderSwap | None = None
    """The encoder and denoiser that swap on the device, in the tiers that do so."""
    embeddings: EmbeddingCache = field(default_factory=EmbeddingCache)
    denoise_limits: MicroBatchLimits = field(default_factory=MicroBatchLimits)
    decode_limits: MicroBatchLimits = field(default_factory=MicroBatchLimits)

    @property
    def profile(self) -> str:
        """What the memory of a pass depends on, besides the model and the pass."""
        kind = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return f"{kind}|{self.tier}|{str(self.dtype).removeprefix('torch.')}"

    @property
    def safest_dtype(self) -> torch.dtype:
        """The dtype of an isolated retry: float32, or the loaded dtype where quantised weights cannot be widened."""
        return torch.float32 if self.tier.weights is Weights.FULL and self.tier.offload_mode not in STREAMED else self.dtype


def load_pipeline(
    entry: ModelEntry,
    catalogue: Catalogue,
    *,
    device: str,
    dtype: str | None = None,
    tier: Tier = Tier.RESIDENT,
    acceleration_settings: AccelerationSettings | None = None,
    digests: WeightDigests | None = None,
    embeddings: EmbeddingCache | None = None,
) -> LoadedPipeline:
    """Load a model onto `device` (`auto`, `cpu`, `cuda:0`, ...) at a memory tier. `dtype` overrides the catalogue's.

    `digests` caches the hashes of files; `embeddings` may be shared by all pipelines of a worker. Raises
    RenderError("model_invalid") with the folder and the remedy, "not_supported" for a tier that is unavailable here, or "oom".
    """
    started = time.perf_counter()
    digests = DIGESTS if digests is None else digests
    where = find_device(device)
    if where.type == "cuda":
        torch.cuda.set_device(where)  # events and streams belong to the current device
    cls = family_class(entry.family)
    precision = pick_dtype(dtype or entry.dtype, where, cls.half)
    if tier in unavailable_tiers(where.type):
        raise RenderError("not_supported", f"model {entry.name}: tier {tier} {unavailable_tiers(where.type)[tier]}")
    files = find_files_of_family(entry, catalogue, cls)
    hashes = {name: digests.of(weight.path) for name, weight in files.weights.items()}
    check_pins(entry.name, hashes, entry.pins)
    try:
        with LOADING:
            pipe = load_on_cpu(entry, catalogue, files, cls, precision)
            parts = modules(pipe)
            narrow([parts[name] for name in (*DENOISERS, *ENCODERS) if name in parts], tier.weights, precision)
            encoder_swap = apply_offload(pipe, where, tier.offload_mode, denoisers=sorted(DENOISERS), encoders=sorted(ENCODERS))
            family = cls(pipe, where, entry)
            acceleration = Acceleration(family.denoiser, family.vae, acceleration_settings or AccelerationSettings(), tier)
    except RenderError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise RenderError("oom", f"model {entry.name} does not fit on {where}: {failure_of(error).detail}") from None
        raise RenderError(
            "model_invalid", f"model {entry.name}: {files.lone_file or files.folder}: {failure_of(error).detail}"
        ) from error
    load_s = time.perf_counter() - started
    facts = describe(entry, files, pipe, where, precision) | {"files": hashes} | tier_facts(tier)
    if acceleration.facts:
        facts["acceleration"] = acceleration.facts
    loaded = LoadedPipeline(
        name=entry.name,
        entry=entry,
        family=family,
        device=where,
        dtype=precision,
        digest=combined(hashes),
        encoder_digest=encoder_digest(files, hashes, digests) + ("" if tier.weights is Weights.FULL else f":{tier.weights}"),
        facts=facts,
        load_s=load_s,
        loras=LoraSet(pipe, entry, catalogue, digests),
        upscalers=Upscalers(catalogue, where, digests, LOADING),
        bytes=bytes_on_device(facts["components"], tier, blocks=ACTIVATIONS[entry.family].blocks),
        acceleration=acceleration,
        tier=tier,
        encoder_swap=encoder_swap,
        embeddings=EmbeddingCache() if embeddings is None else embeddings,
    )
    log.info(
        "model loaded",
        model=entry.name,
        device=str(where),
        dtype=facts["dtype"],
        tier=str(tier),
        s=round(load_s, 2),
        bytes=loaded.bytes,
    )
    return loaded


def find_files_of_family(entry: ModelEntry, catalogue: Catalogue, cls: type[Family]) -> ModelFiles:
    """The model's files. Raises RenderError("model_invalid") if they are missing or hold a pipeline of another family."""
    files = find_files(entry, catalogue)
    if files.pipeline_class not in cls.pipelines:
        raise RenderError(
            "model_invalid",
            f"model {entry.name}: {files.folder} holds a {files.pipeline_class or 'model without a pipeline class'};"
            f" family {entry.family} loads {' or '.join(cls.pipelines)}",
        )
    return files


def load_on_cpu(entry: ModelEntry, catalogue: Catalogue, files: ModelFiles, cls: type[Family], dtype: torch.dtype) -> Any:
    """The pipeline with every weight read, ready for inference only."""
    pipe = cls.load(entry, catalogue, files, dtype)
    pipe.set_progress_bar_config(disable=True)
    check_complete(files, pipe)
    for module in modules(pipe).values():
        module.eval().requires_grad_(False)
    return pipe


def modules(pipe: Any) -> dict[str, torch.nn.Module]:
    """The neural networks of a pipeline, by component name."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def check_complete(files: ModelFiles, pipe: Any) -> None:
    """Raise RenderError if a network has more parameters than its files hold; the libraries would fill the rest at random."""
    for name, module in modules(pipe).items():
        stored = sum(file.parameters for file in files.of_component(name))
        needed = sum(parameter.numel() for parameter in module.parameters())
        if stored and stored < needed:
            raise RenderError(
                "model_invalid", f"{files.folder / name} holds {stored} of {needed} parameters; fetch the model again"
            )


def tier_facts(tier: Tier) -> dict[str, str]:
    """What the audit and the pages say about how a model is held."""
    return {"tier": str(tier), "weights": str(tier.weights), "fidelity": FIDELITY[tier.weights]}


def bytes_on_device(components: dict[str, dict[str, Any]], tier: Tier, *, blocks: int) -> int:
    """Bytes of the weights at the peak of a tier."""
    stored = {name: int(part["bytes"]) for name, part in components.items()}
    denoiser = sum(size for name, size in stored.items() if name in DENOISERS)
    encoders = sum(size for name, size in stored.items() if name in ENCODERS)
    rest = sum(stored.values()) - denoiser - encoders
    match tier.offload_mode:
        case OffloadMode.RESIDENT:
            return denoiser + encoders + rest
        case OffloadMode.ENCODER_SWAPPED:
            return max(denoiser, encoders) + rest
        case OffloadMode.BLOCKS:
            return min(denoiser, STREAMED_BLOCKS * denoiser // blocks) + rest
        case OffloadMode.LAYERS:
            return denoiser // 100 + rest


def encoder_digest(files: ModelFiles, hashes: dict[str, str], digests: WeightDigests) -> str:
    """Digest of everything that turns a text into an embedding."""
    encoders = {name: digest for name, digest in hashes.items() if name.startswith("text_encoder") or "/" not in name}
    for folder in sorted(files.folder.glob("tokenizer*")):
        encoders |= {f"{folder.name}/{file.name}": digests.of(file) for file in sorted(folder.iterdir()) if file.is_file()}
    return combined(encoders)


def describe(entry: ModelEntry, files: ModelFiles, pipe: Any, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The audit's facts about a loaded model."""
    components = {
        name: {
            "class": type(module).__name__,
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
            "bytes": module_bytes(module),
            "dtype": str(next(module.parameters()).dtype).removeprefix("torch."),
        }
        for name, module in modules(pipe).items()
    }
    return {
        "family": entry.family,
        "source": entry.source,
        "revision": files.revision or entry.revision,
        "variant": files.variant or "",
        "pipeline": type(pipe).__name__,
        "scheduler": type(pipe.scheduler).__name__,
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "components": components,
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }
