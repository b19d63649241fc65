"""Trains the demo model from nothing: `python -m tools.demo_model.train --out models/demo`

Renders pictures, trains tokenizer, text encoder, VAE and transformer, each for a given time, and writes the model folder.
Nothing is downloaded. A finished stage is kept in the working folder; start again with --from to redo it and the rest.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

STAGES = ("pictures", "text", "vae", "latents", "transformer", "export")
MINUTES = {"text": 5.5, "vae": 8.0, "transformer": 52.0}  # on two processor cores
WORK = Path(__file__).with_name("work")
# Large tensors are mapped and returned to the system at every operation otherwise, which takes half of the time.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Plan:
    """The stages to train, from `first` on: each for `share` of its usual time, in `processes` processes.

    `start` is a transformer's folder to continue from, or None to begin afresh.
    """

    processes: int
    share: float = 1.0
    first: str = STAGES[0]
    start: Path | None = None


def train(work: Path, out: Path, plan: Plan) -> None:
    """Carry out `plan` in the folder `work` and write the model to `out`."""
    from tools.demo_model import export, pictures, text_encoder, transformer, vae

    work.mkdir(parents=True, exist_ok=True)
    seconds = {stage: 60 * minutes * plan.share for stage, minutes in MINUTES.items()}
    for stage in STAGES[STAGES.index(plan.first) :]:
        if stage == "pictures":
            counts = {edge: max(1000, round(count * min(1.0, plan.share))) for edge, count in pictures.COUNTS.items()}
            pictures.render_pictures(work, counts, plan.processes)
        elif stage == "text":
            text_encoder.train_text_encoder(work, seconds["text"])
        elif stage == "vae":
            vae.train_vae(work, seconds["vae"])
        elif stage == "latents":
            vae.write_latents(work)
        elif stage == "transformer":
            transformer.train_transformer(work, seconds["transformer"], plan.processes, plan.start)
        else:
            print(f"{out}: {export.export_model(work, out) / 1e6:.1f} MB")


def main() -> None:
    """Parse the command line and train; the process restarts itself once to set the allocator."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for about 1.2 GB of intermediate files")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--share", type=float, default=1.0, help="part of the usual time; 0.01 is a trial of the chain")
    parser.add_argument("--from", dest="first", choices=STAGES, default=STAGES[0], help="stage to start with")
    parser.add_argument("--start", type=Path, help="a transformer's folder to continue from")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        command = [sys.executable, "-m", "tools.demo_model.train", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **ALLOCATOR})
    train(options.work, options.out, Plan(options.processes, options.share, options.first, options.start))


if __name__ == "__main__":
    main()
