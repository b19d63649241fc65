"""Where a model's files are on this machine, which of them are weights, and whether all classes are known."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagefarm.catalogue import Catalogue
from imagefarm.errors import RenderError
from imagefarm.model_entry import ModelEntry
from worker.weights.headers import WeightFile, read_header

SHARD = re.compile(r"-\d{5}-of-\d{5}$")
KNOWN_CLASSES: dict[str, frozenset[str]] = {
    "diffusers": frozenset(
        {
            "AutoencoderKL", "AutoencoderTiny", "DDIMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
            "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler",
            "FlowMatchEulerDiscreteScheduler", "HeunDiscreteScheduler", "LCMScheduler", "LMSDiscreteScheduler", "PNDMScheduler",
            "UNet2DConditionModel", "UniPCMultistepScheduler", "ZImageTransformer2DModel",
        }
    ),
    "transformers": frozenset(
        {
            "CLIPTextModel", "CLIPTextModelWithProjection", "CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast",
            "Qwen2Tokenizer", "Qwen2TokenizerFast", "Qwen3ForCausalLM", "Qwen3Model", "Siglip2ImageProcessor",
            "Siglip2ImageProcessorFast", "Siglip2ImageProcessorPil",
            "Siglip2VisionModel", "TokenizersBackend",
        }
    ),
}  # fmt: skip
"""Classes that may be loaded. A model that names any other class is refused, because it would run foreign code."""
NOT_LOADED = frozenset({"safety_checker", "feature_extractor", "image_encoder"})
"""Optional components of Stable Diffusion that the farm never loads."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that is complete on this machine."""

    folder: Path
    """The folder with model_index.json; for a single-file model, that of its configuration."""
    lone_file: Path | None
    revision: str
    variant: str | None
    pipeline_class: str
    components: dict[str, str]
    """Class of each loaded component, by name."""
    weights: dict[str, WeightFile]
    """Files by name relative to the folder; a single-file model by its file name."""

    def of_component(self, name: str) -> list[WeightFile]:
        return [file for path, file in self.weights.items() if path.startswith(f"{name}/")]


def find_files(entry: ModelEntry, catalogue: Catalogue) -> ModelFiles:
    """Find and check the files of a model. Never downloads.

    Raises RenderError("model_invalid") with one line that names the place and the remedy.
    """
    path = catalogue.local_path(entry.source)
    lone = path if path is not None and path.suffix == ".safetensors" else None
    if path is not None and not path.exists():
        raise _invalid(entry, f"{path} does not exist; put the weights there or change `source` in the catalogue")
    if path is not None and path.is_file() and lone is None:
        raise _invalid(entry, f"{path} is not a .safetensors file; pickled weights are never loaded, convert them first")
    if lone is not None and not entry.config:
        raise _invalid(entry, f"{lone} is a lone file: name the folder of its configuration as `config` in the catalogue")
    folder, revision = _place(entry, entry.source if lone is None else entry.config, catalogue)
    index = _read_json(entry, folder / "model_index.json")
    components = _checked_components(entry, index)
    variant = entry.variant if entry.variant and any(folder.glob(f"*/*.{entry.variant}*.safetensors")) else None
    weights = {} if lone is None else {lone.name: read_header(lone)}
    for name in components:
        files = _weight_files(folder / name, variant)
        if not files and _needs_weights(components[name]) and lone is None:
            pickled = sorted(file.name for file in (folder / name).glob("*.bin"))
            remedy = (
                f"only {pickled[0]}: pickled weights are never loaded, convert them to safetensors"
                if pickled
                else "no .safetensors file; fetch the model again"
            )
            raise _invalid(entry, f"{folder / name} has {remedy}")
        weights |= {f"{name}/{file.name}": read_header(file) for file in files}
    return ModelFiles(folder, lone, revision, variant, str(index.get("_class_name", "")), components, weights)


def adapter_file(entry: ModelEntry, catalogue: Catalogue) -> Path:
    """The file of the LoRA that belongs to the model itself. Raises RenderError("model_invalid") if it is not available."""
    if entry.adapter is None:
        raise ValueError(f"model {entry.name} has no adapter")
    adapter = entry.adapter
    return _one_file(catalogue, f"model {entry.name}: its adapter", adapter.source, adapter.weight_name, adapter.revision)


def lora_file(catalogue: Catalogue, name: str) -> Path:
    """The file of a LoRA of the catalogue. Raises RenderError("model_invalid") if it is not available."""
    lora = catalogue.loras.get(name)
    if lora is None:
        raise RenderError("model_invalid", f"no LoRA {name!r} in the catalogue; known: {', '.join(catalogue.loras) or 'none'}")
    return _one_file(catalogue, f"LoRA {name}", lora.source, lora.weight_name, "")


def _one_file(catalogue: Catalogue, what: str, source: str, weight_name: str, revision: str) -> Path:
    path = catalogue.local_path(source)
    if path is None:
        folder = _snapshot(source, revision)
        if folder is None:
            raise RenderError("model_invalid", f"{what}: {source} is not on this machine; `imagefarm models pull` fetches it")
        path = folder / weight_name
    elif path.is_dir():
        path = path / weight_name
    if path.suffix != ".safetensors":
        raise RenderError("model_invalid", f"{what}: {path} is not a .safetensors file; pickled weights are never loaded")
    read_header(path)
    return path


def _invalid(entry: ModelEntry, what: str) -> RenderError:
    return RenderError("model_invalid", f"model {entry.name}: {what}")


def _place(entry: ModelEntry, source: str, catalogue: Catalogue) -> tuple[Path, str]:
    """The folder of a source and, if it came from the hub, its commit."""
    path = catalogue.local_path(source)
    if path is not None:
        return path, ""
    folder = _snapshot(source, entry.revision)
    if folder is None:
        raise _invalid(
            entry,
            f"{source} is not on this machine, as a folder or in the hub's cache; run `imagefarm models pull {entry.name}`",
        )
    return folder, folder.name


def _snapshot(source: str, revision: str) -> Path | None:
    """The folder of a hub id in this machine's cache, or None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision or None, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None


def _read_json(entry: ModelEntry, file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise _invalid(entry, f"{file}: {error.strerror}; it is not a diffusers folder, or not complete") from None
    except ValueError as error:
        raise _invalid(entry, f"{file} is not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise _invalid(entry, f"{file} is not a JSON object")
    return data


def _checked_components(entry: ModelEntry, index: dict[str, Any]) -> dict[str, str]:
    """Class of each component by name; all classes are known to the farm."""
    components = {}
    for name, value in index.items():
        if name.startswith("_") or name in NOT_LOADED or not isinstance(value, list) or value == [None, None]:
            continue
        library, class_name = (str(part) for part in value)
        if class_name not in KNOWN_CLASSES.get(library, frozenset()):
            raise _invalid(entry, f"model_index.json names {library}.{class_name} for {name}, which the farm does not load")
        components[name] = class_name
    return components


def _needs_weights(class_name: str) -> bool:
    return not class_name.endswith(
        ("Scheduler", "Tokenizer", "TokenizerFast", "Backend", "Processor", "ProcessorFast", "ProcessorPil")
    )


def _weight_files(folder: Path, variant: str | None) -> list[Path]:
    """The safetensors files to load from a component's folder: those of the variant if there are any, otherwise the plain
    ones."""
    by_variant: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        # model.fp16-00001-of-00002.safetensors: the variant is between the first dot and the shard
        _, _, suffix = SHARD.sub("", file.stem).partition(".")
        by_variant.setdefault(suffix, []).append(file)
    return (variant and by_variant.get(variant)) or by_variant.get("", [])
