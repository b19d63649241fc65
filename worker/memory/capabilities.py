"""Which tiers are available: what each needs of the installation and the device, and how to get it. Imports no torch."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from worker.memory.planner import OffloadMode, Tier, Weights

NEEDS_TORCHAO = "needs torchao: pip install 'imagefarm-server[int8]'"
NEEDS_BITSANDBYTES = "needs bitsandbytes: pip install bitsandbytes"
GPU = "cuda"


def unavailable_tiers(device_type: str = GPU) -> dict[Tier, str]:
    """Tiers that a device of this type (`cuda`, `mps`, `cpu`) cannot run, each with the reason. ROCm reports itself as `cuda`."""
    return {tier: why for tier in Tier if (why := _why_not(tier, device_type))}


def unhelpful_tiers(device_type: str) -> dict[Tier, str]:
    """Tiers that bring nothing on such a device. They are taken only when asked for by name."""
    if device_type == GPU:
        return {}
    why = f"moves weights to the machine's memory, which is where a {device_type} device has them"
    return {tier: why for tier in Tier if tier.offload_mode is not OffloadMode.RESIDENT}


def _why_not(tier: Tier, device_type: str) -> str:
    match tier.weights:
        case Weights.INT8 if not _installed("torchao"):
            return NEEDS_TORCHAO
        case Weights.FP8 if device_type == "mps":
            return "MPS has no 8-bit floats; use int8"
        case Weights.NF4 if device_type != GPU:
            return "needs a GPU of NVIDIA or AMD"
        case Weights.NF4 if not _installed("bitsandbytes"):
            return NEEDS_BITSANDBYTES
    return ""


def _installed(package: str) -> bool:
    # read from the metadata: the package itself is hidden from imports (see worker/__init__.py)
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
