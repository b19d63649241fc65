"""The VAE: one latent of 8 channels per 4 x 4 pixels, trained on the rendered pictures."""

# mypy: allow-untyped-calls
from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from tools.demo_model.muon import Muon
from tools.demo_model.pictures import Pixels, load_pictures
from tools.demo_model.progress import Progress

WIDTH, CHANNELS = 48, 8
TEST = 256  # the last pictures of every size are kept for measuring
BATCHES: dict[int, int] = {64: 4, 128: 1}  # edge: pictures a step; the same number of pixels
SCALES = ("encoder.conv_in.weight", "encoder.conv_out.weight", "decoder.conv_out.weight")


def make_vae() -> Any:
    """A fresh VAE: three levels of equal width, so that one group normalizes all channels and keeps flat colour."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(WIDTH,) * 3,
        layers_per_block=0,
        latent_channels=CHANNELS,
        norm_num_groups=1,
        sample_size=64,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def to_tensor(pixels: Pixels) -> Tensor:
    """Pixels (count, height, width, 3) of 0..255 as (count, 3, height, width) of -1..1."""
    values = torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1)
    return values.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def encode_mean(vae: Any, pixels: Pixels) -> Tensor:
    """The means of the latents of `pixels`: (count, CHANNELS, height / 4, width / 4), neither shifted nor scaled."""
    latents: Tensor = vae.encoder(to_tensor(pixels))[:, :CHANNELS]
    return latents


def vae_losses(vae: Any, pictures: Tensor) -> dict[str, Tensor]:
    """The parts of the loss for `pictures` (count, 3, height, width), each a number.

    Latents carry noise of 0.1, so that the decoder bears the transformer's small errors, and are held near mean 0 and
    deviation 1 in every channel. The log-variance is not used by anything; it is only kept finite.
    """
    mean, log_variance = vae.encoder(pictures).chunk(2, 1)
    drawn = vae.decoder(mean + 0.1 * torch.randn_like(mean))
    error = drawn - pictures
    channels = mean.permute(1, 0, 2, 3).flatten(1)
    return {
        "absolute": error.abs().mean(),
        "squared": error.square().mean(),
        "edges": error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean(),
        "spread": channels.mean(1).square().mean() + (channels.std(1) - 1).square().mean(),
        "variance": (log_variance + 5).square().mean(),
    }


WEIGHTS = {"absolute": 1.0, "squared": 4.0, "edges": 0.5, "spread": 0.02, "variance": 0.001}


def train_vae(folder: Path, seconds: float) -> None:
    """Train the VAE on the pictures in `folder` and save it there with its measured shift and scale."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    pictures = {edge: load_pictures(folder, edge) for edge in BATCHES}
    vae = make_vae().to(memory_format=torch.channels_last)
    inner = [p for name, p in vae.named_parameters() if p.ndim == 4 and name not in SCALES]
    chosen = {id(p) for p in inner}
    outer = [p for p in vae.parameters() if id(p) not in chosen]
    muon = Muon(inner)
    adam = torch.optim.AdamW(outer, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0)
    progress = Progress("vae", seconds, every=100)
    for done in progress.fractions():
        factor = min(1.0, (progress.steps + 1) / 20) * max(0.01, 0.5 * (1 + math.cos(math.pi * done)))
        muon.param_groups[0]["lr"] = 0.02 * factor
        adam.param_groups[0]["lr"] = 3e-3 * factor
        edge = 64 if progress.steps % 2 else 128
        picks = np.sort(rng.integers(len(pictures[edge]) - TEST, size=BATCHES[edge]))
        losses = vae_losses(vae, to_tensor(pictures[edge][picks]))
        loss = torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum()
        muon.zero_grad(set_to_none=True)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        muon.step()
        adam.step()
        progress.step({f"psnr {edge}": -10 * math.log10(losses["squared"].item() / 4), "spread": losses["spread"].item()})
    vae.eval()
    measure_vae(vae, pictures)
    values = torch.cat([encode_mean(vae, pixels[:2000:8]).flatten() for pixels in pictures.values()]).detach()
    vae.register_to_config(scaling_factor=1 / values.std().item(), shift_factor=values.mean().item())
    vae.save_pretrained(folder / "vae")


@torch.no_grad()
def measure_vae(vae: Any, pictures: dict[int, Pixels]) -> None:
    """Print the mean PSNR in dB of the test pictures of every size."""
    for edge, pixels in pictures.items():
        ratios = []
        for start in range(len(pixels) - TEST, len(pixels), 32):
            batch = to_tensor(pixels[start : start + 32])
            error = (vae.decoder(vae.encoder(batch)[:, :CHANNELS]).clamp(-1, 1) - batch).square().mean((1, 2, 3))
            ratios.append(-10 * torch.log10(error / 4))
        print(f"vae: {torch.cat(ratios).mean().item():.2f} dB on {TEST} unseen pictures of {edge} px", flush=True)


@torch.no_grad()
def write_latents(folder: Path) -> None:
    """Encode all pictures: latents-<edge>.pt, fp16 (count, CHANNELS, edge / 4, edge / 4), shifted and scaled."""
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval().to(memory_format=torch.channels_last)
    for edge in BATCHES:
        pixels = load_pictures(folder, edge)
        step = 64 * 64 * 64 // edge**2
        means = [encode_mean(vae, pixels[k : k + step]) for k in range(0, len(pixels), step)]
        latents = torch.cat([(mean - vae.config.shift_factor) * vae.config.scaling_factor for mean in means])
        torch.save(latents.half().contiguous(), folder / f"latents-{edge}.pt")
