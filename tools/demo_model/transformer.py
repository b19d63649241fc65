"""The transformer: flow matching on the latents of two picture sizes, conditioned on the frozen text encoder."""

# mypy: allow-untyped-calls
from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ZImageTransformer2DModel
from torch import Tensor, nn
from transformers import AutoTokenizer, Qwen3Model

from tools.demo_model import fused
from tools.demo_model.auxiliary_heads import TAPS, AuxiliaryHeads
from tools.demo_model.batched import MULTIPLE, Captions, forward, rotation, to_patches
from tools.demo_model.data_parallel import ProcessGroup, run_process_group
from tools.demo_model.muon import Muon
from tools.demo_model.pictures import load_scenes
from tools.demo_model.progress import Progress
from tools.demo_model.prompts import write_prompt
from tools.demo_model.scenes import Scene
from tools.demo_model.text_encoder import WIDTH as CAPTION_WIDTH
from tools.demo_model.text_encoder import encode
from tools.demo_model.tokenizer import wrap
from tools.demo_model.vae import CHANNELS

WIDTH, LAYERS = 128, 6
SHIFT = 3.0  # the scheduler's; training draws noise levels from the same curve
BATCHES: dict[int, int] = {64: 32, 128: 12}  # edge: pictures a step over all processes; about the same time a step
CAPTIONS: dict[int, float] = {1: 0.88, 2: 0.07, 3: 0.03, 4: 0.02}  # padded length in MULTIPLEs: how often
SEED = 5
SKIPS = 20  # steps that may be left out because their gradient is not finite
FIRST = 0.15  # part of a fresh transformer's time that sees the small pictures alone
EMPTY = 0.05  # part of the samples with an empty prompt, for guidance


def make_transformer() -> Any:
    """A fresh transformer whose blocks start as nearly the identity."""
    heads = WIDTH // fused.HEAD
    model: Any = ZImageTransformer2DModel(
        in_channels=CHANNELS,
        dim=WIDTH,
        n_layers=LAYERS,
        n_refiner_layers=1,
        n_heads=heads,
        n_kv_heads=heads,
        cap_feat_dim=CAPTION_WIDTH,
        axes_dims=[8, 12, 12],
        axes_lens=[1024, 512, 512],
        rope_theta=256.0,
        t_scale=1000.0,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "adaLN_modulation" in name and ("layers" in name or "refiner" in name):
                parameter.zero_()
                if name.endswith("bias"):  # the two gates, which pass through tanh
                    parameter[WIDTH : 2 * WIDTH] = 0.4
                    parameter[3 * WIDTH :] = 0.4
            elif "all_final_layer" in name:
                parameter.zero_()
            elif "pad_token" in name or name.endswith("embedder.2-1.bias") or name == "cap_embedder.1.bias":
                # Rotary embedding only turns what is there: a constant part lets attention read absolute places.
                parameter.normal_(std=0.5)
    return model


class CaptionWriter:
    """Writes fresh prompts for scenes at every step and encodes them with the frozen text encoder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        self.encoder = Qwen3Model.from_pretrained(folder / "text_encoder").float().eval()
        self.rng = random.Random(seed)

    def write(self, scenes: Sequence[Scene]) -> tuple[Captions, Tensor]:
        """A prompt for every scene, all of one padded length, and which of them say nothing (batch,)."""
        blocks = self.rng.choices(list(CAPTIONS), list(CAPTIONS.values()))[0]
        tokens = [self._tokens(scene, blocks) for scene in scenes]
        ids = torch.zeros(len(tokens), blocks * MULTIPLE, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, numbers in enumerate(tokens):
            ids[row, : len(numbers)] = torch.tensor(numbers)
            mask[row, : len(numbers)] = 1
        blank = len(self.tokenizer(wrap("")).input_ids)
        with torch.no_grad():
            features = encode(self.encoder, ids, mask)
        return Captions(features, mask == 0), mask.sum(1) == blank

    def _tokens(self, scene: Scene, blocks: int) -> list[int]:
        """Tokens of a prompt that needs exactly `blocks` MULTIPLEs; more filler makes it longer."""
        if blocks == 1 and self.rng.random() < EMPTY:
            numbers: list[int] = self.tokenizer(wrap("")).input_ids
            return numbers
        filler = None if blocks == 1 else 6 * blocks - 8
        while True:
            numbers = self.tokenizer(wrap(write_prompt(scene, self.rng, filler))).input_ids
            needed = -(-len(numbers) // MULTIPLE)
            if needed == blocks:
                return numbers
            if filler is not None:
                filler = max(1, filler + (1 if needed < blocks else -1))


@dataclass(frozen=True)
class Latents:
    """The training set of one size: `patches` (count, tokens, features) in fp16, `labels` (count, 4), its scenes."""

    patches: Tensor
    labels: Tensor
    scenes: list[Scene]
    grid: int


def load_latents(folder: Path, edge: int) -> Latents:
    """The latents that the VAE made of the pictures of one size."""
    latents = torch.load(folder / f"latents-{edge}.pt")
    scenes = load_scenes(folder, edge)
    patches = torch.cat([to_patches(part) for part in latents.split(1000)])
    return Latents(patches, torch.tensor([scene.labels() for scene in scenes]), scenes, latents.shape[-1] // 2)


def noise_levels(count: int) -> Tensor:
    """Stratified noise levels (count,) of 0..1 in random order, spread like the scheduler's."""
    even = (torch.randperm(count) + torch.rand(count)) / count
    return SHIFT * even / (1 + (SHIFT - 1) * even)


def train_transformer(folder: Path, seconds: float, processes: int, start: Path | None = None) -> None:
    """Train for `seconds` in `processes` processes on the latents in `folder`, and write the weights there.

    `start` is a transformer's folder to continue from, made for the same text encoder and VAE.
    """
    run_process_group(_train, processes, folder, seconds, start)


def _train(group: ProcessGroup, folder: Path, seconds: float, start: Path | None) -> None:
    """One process's part. Averaged weights are saved now and then and at the end.

    A fresh transformer first sees the small pictures alone, for FIRST of the time: what the words mean is learnt three
    times faster there. Afterwards two of three steps are for the large ones, which take longer to learn.
    """
    torch.manual_seed(SEED)
    model, auxiliary_heads = make_transformer(), AuxiliaryHeads(WIDTH, 4 * CHANNELS)
    if start:
        model.load_state_dict(ZImageTransformer2DModel.from_pretrained(start).float().state_dict())
    torch.manual_seed(SEED + 1 + group.rank)  # alike weights, but samples of one's own
    rng = np.random.default_rng(SEED + group.rank)
    writer = CaptionWriter(folder, SEED + group.rank)
    sets = {edge: load_latents(folder, edge) for edge in BATCHES}
    inner = [p for name, p in model.named_parameters() if _is_inner(name, p)]
    chosen = {id(p) for p in inner}
    outer = [p for p in model.parameters() if id(p) not in chosen]
    muon = Muon(inner)
    adam = torch.optim.AdamW([*outer, *auxiliary_heads.parameters()], lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0)
    average = copy.deepcopy(model).requires_grad_(False)
    averaged, current = list(average.parameters()), list(model.parameters())
    rotations: dict[tuple[int, int], Tensor] = {}
    progress, steps = Progress("transformer", seconds), 0
    saved = done = 0.0
    skipped = 0
    trained = [*current, *auxiliary_heads.parameters()]
    while done < 1:
        factor = min(1.0, (steps + 1) / 60) * max(0.01, min(1.0, 1.25 * (1 - done)))
        muon.param_groups[0]["lr"] = 0.02 * factor
        adam.param_groups[0]["lr"] = 2e-3 * factor
        edge = 128 if (start or done > FIRST) and steps % 3 else 64
        data = sets[edge]
        picks = torch.from_numpy(rng.integers(len(data.scenes), size=BATCHES[edge] // group.size))
        captions, empty = writer.write([data.scenes[k] for k in picks.tolist()])
        length = captions.features.shape[1]
        if (length, edge) not in rotations:
            rotations[length, edge] = rotation(model, length, data.grid, data.grid)

        clean = data.patches[picks].float()
        noise, level = torch.randn_like(clean), noise_levels(len(clean))
        mixed = clean + level[:, None, None] * (noise - clean)
        output, tapped = forward(model, mixed, 1 - level, captions, rotations[length, edge], taps=TAPS)
        flow = (output - (clean - noise)).square().mean((1, 2))
        read = auxiliary_heads(tapped, clean, data.labels[picks], data.grid, ~empty)
        # The answers that the image tokens must know early are a scaffold; it is taken away towards the end.
        scaffold = 0.1 * read["attributes"] + 0.1 * read["place"] + 0.5 * read["clean"]
        loss = flow.mean() + 0.1 * read["position"] + scaffold * (1 - done)

        muon.zero_grad(set_to_none=True)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        done = group.average(trained, progress.done())
        steps += 1
        if not nn.utils.clip_grad_norm_(current, 1.0).isfinite():
            skipped += 1
            if skipped > SKIPS:
                raise FloatingPointError(f"the gradient is not finite for the {skipped}th time, at step {steps}")
            continue
        muon.step()
        adam.step()
        decay = min(0.998, (steps + 1) / (steps + 20))
        with torch.no_grad():
            torch._foreach_lerp_(averaged, current, 1 - decay)
        parts = {"flow": flow.mean().item(), **{name: value.item() for name, value in read.items()}}
        if group.rank:
            continue
        progress.step({f"{name}{edge}": value for name, value in parts.items()})
        if progress.elapsed() - saved > 150 or done >= 1:
            saved = progress.elapsed()
            average.save_pretrained(folder / "transformer")


def _is_inner(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon trains this weight: a matrix inside a block, other than the modulation."""
    return parameter.ndim == 2 and ("layers" in name or "refiner" in name) and "adaLN" not in name
