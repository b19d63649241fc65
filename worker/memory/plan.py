"""`python -m worker.memory.plan MODEL --vram 12`: how a model would be loaded on a GPU with 12 GiB free."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from imagefarm.catalogue import Catalogue
from imagefarm.errors import ConfigurationError, FarmError
from imagefarm.model_entry import ModelEntry
from imagefarm.settings import load_settings
from worker.memory.capabilities import unavailable_tiers
from worker.memory.planner import GIB, Plan, best, plan
from worker.memory.sizes import model_size, shapes_of


def as_data(entry: ModelEntry, vram_gib: float, origin: str, plans: list[Plan]) -> dict[str, Any]:
    """The answer as plain data; `tier` is None if the model fits at no tier."""
    chosen = best(plans)
    return {
        "model": entry.name,
        "vram_gib": vram_gib,
        "sizes_from": origin,
        "tier": chosen.tier if chosen else None,
        "tiers": [
            {
                "tier": candidate.tier,
                "weights": candidate.tier.weights,
                "is_feasible": candidate.is_feasible,
                "weights_gib": round(candidate.weight_bytes / GIB, 2),
                "host_gib": round(candidate.host_bytes / GIB, 2),
                "running_images": [dataclasses.asdict(fit) for fit in candidate.fits],
                "fidelity": candidate.fidelity,
                "speed": candidate.speed,
                "unavailable_reason": candidate.unavailable_reason,
            }
            for candidate in plans
        ],
        "note": "Weights are exact. Running images are estimates from the layers' widths; a worker measures its passes and keeps"
        " what it learnt. It takes the first tier that works, or the one that the setting `tier` names.",
    }


def as_text(data: dict[str, Any]) -> str:
    """The answer as text."""
    head = f"{data['model']} on {data['vram_gib']:g} GiB (sizes from {data['sizes_from']})"
    chosen = next((tier for tier in data["tiers"] if tier["tier"] == data["tier"]), None)
    if chosen is None:
        least = min(tier["weights_gib"] for tier in data["tiers"])
        lines = [head, f"  does not fit in any way: the least that its weights take is {least:.1f} GiB", ""]
    else:
        lines = [
            head,
            f"  take      {chosen['tier']}: {chosen['weights_gib']:.1f} GiB of weights on the device",
            f"  fidelity  {chosen['fidelity']}",
            f"  speed     {chosen['speed']}",
            "",
        ]
    sizes = [f"{fit['width']}x{fit['height']}" for fit in data["tiers"][0]["running_images"]]
    lines.append(f"  {'tier':<22}{'weights':>9}{'host':>8}  " + "".join(f"{size:>11}" for size in sizes))
    for tier in data["tiers"]:
        cells = [f"{fit['images']}{'*' if fit['tiled'] else ''}" if fit["images"] else "-" for fit in tier["running_images"]]
        mark = ">" if tier["tier"] == data["tier"] else " "
        lines.append(
            f"{mark} {tier['tier']:<22}{tier['weights_gib']:>7.1f} G{tier['host_gib']:>6.1f} G  "
            + "".join(f"{cell:>11}" for cell in cells)
            + (f"  {tier['unavailable_reason']}" if tier["unavailable_reason"] else "")
        )
    lines += ["", "  images that run at once, by size; * the decoder works in tiles, which changes the picture a little"]
    return "\n".join([*lines, f"  {data['note']}"])


def main(arguments: list[str] | None = None) -> int:
    """Print the plan; return 0 if the model fits, 1 if it does not, or the exit code of a configuration error."""
    parser = argparse.ArgumentParser(prog="imagefarm plan", description=__doc__)
    parser.add_argument("model", help="name or alias in the catalogue")
    parser.add_argument("--vram", type=float, required=True, metavar="GIB", help="free memory of the device in GiB")
    parser.add_argument("--models-file", type=Path, help="the catalogue; default: the one the settings name")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    asked = parser.parse_args(arguments)
    if not asked.vram > 0:
        parser.error("--vram must be more than 0")
    try:
        settings = load_settings(models_file=asked.models_file)
        catalogue = Catalogue.read(settings.catalogue_file)
        entry = catalogue.get(asked.model)
        size, origin = model_size(entry, catalogue)
    except FarmError as error:
        print(error.detail, file=sys.stderr)
        return error.exit_code if isinstance(error, ConfigurationError) else 2
    plans = plan(
        size,
        int(asked.vram * GIB),
        shapes_of(entry),
        max_images=settings.max_running_set_images,
        unavailable=unavailable_tiers(),
        tiled=settings.vae_tiling,
    )
    data = as_data(entry, asked.vram, origin, plans)
    print(json.dumps(data, indent=2) if asked.json else as_text(data))
    return 0 if data["tier"] else 1


if __name__ == "__main__":
    sys.exit(main())
