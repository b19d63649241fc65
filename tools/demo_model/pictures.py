"""The training pictures: random scenes rendered once and kept on disk."""

from __future__ import annotations

import pickle
import random
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.demo_model.scenes import Scene, render, training_scene

COUNTS: dict[int, int] = {64: 24000, 128: 12000}  # edge in pixels: number of pictures
PART = 500
Pixels = NDArray[np.uint8]


def render_part(edge: int, seed: int, count: int) -> tuple[Pixels, list[Scene]]:
    """Render `count` random training scenes: pixels (count, edge, edge, 3) and what they show."""
    rng = random.Random(seed)
    scenes = [training_scene(rng) for _ in range(count)]
    return np.stack([np.asarray(render(scene, edge, edge, rng)) for scene in scenes]), scenes


def render_pictures(folder: Path, counts: dict[int, int], processes: int) -> None:
    """Write pictures-<edge>.npy and scenes-<edge>.pickle to `folder` for every edge of `counts`."""
    with Pool(processes) as pool:
        for edge, count in counts.items():
            parts = [(edge, 1000 * edge + k, min(PART, count - k * PART)) for k in range(-(-count // PART))]
            done = pool.starmap(render_part, parts, chunksize=1)
            np.save(folder / f"pictures-{edge}.npy", np.concatenate([pixels for pixels, _ in done]))
            scenes = [scene for _, part in done for scene in part]
            (folder / f"scenes-{edge}.pickle").write_bytes(pickle.dumps(scenes))
            print(f"rendered {count} pictures of {edge} px", flush=True)


def load_pictures(folder: Path, edge: int) -> Pixels:
    """The pictures of one size, (count, edge, edge, 3), mapped from disk."""
    pixels: Pixels = np.load(folder / f"pictures-{edge}.npy", mmap_mode="r")
    return pixels


def load_scenes(folder: Path, edge: int) -> list[Scene]:
    """What the pictures of one size show, in their order."""
    scenes: list[Scene] = pickle.loads((folder / f"scenes-{edge}.pickle").read_bytes())
    return scenes
