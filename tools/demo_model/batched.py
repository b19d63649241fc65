"""The stock ZImageTransformer2DModel's forward pass, written for a batch of equal shapes.

The stock forward takes lists of any shapes and masks them. Training batches are all alike, so this one needs no mask,
can use the fused operations, and lets training read the image tokens between layers. A test holds it to the stock one.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tools.demo_model import fused

EPS = 1e-5
PATCH = "2-1"  # the stock model's name for patches of 2 x 2 latents
MULTIPLE = 32  # captions are padded to a multiple of this


@dataclass(frozen=True)
class Captions:
    """Encoded prompts: `features` (batch, length, width), and `padding` (batch, length), true where no token is."""

    features: Tensor
    padding: Tensor


def rotation(model: Any, caption: int, rows: int, columns: int) -> Tensor:
    """Cosines and sines of the rotary position embedding: (2, tokens, HEAD / 2).

    The tokens are `rows` x `columns` image tokens followed by `caption` padded caption tokens.
    """
    steps = torch.arange(1, caption + 1)
    caption_places = torch.stack([steps, torch.zeros_like(steps), torch.zeros_like(steps)], -1)
    image_places = model.create_coordinate_grid((1, rows, columns), (caption + 1, 0, 0)).flatten(0, 2)
    turned = model.rope_embedder(torch.cat([image_places, caption_places]).int())
    return torch.stack([turned.real, turned.imag])


def to_patches(latents: Tensor) -> Tensor:
    """Latents (batch, channels, height, width) as tokens (batch, height * width / 4, 4 * channels)."""
    batch, channels, height, width = latents.shape
    blocks = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1)
    return blocks.reshape(batch, height * width // 4, 4 * channels)


def _block(layer: Any, x: Tensor, turns: Tensor, condition: Tensor | None) -> Tensor:
    """One transformer block on `x` (batch, length, width); `condition` (batch, features) modulates it if given."""
    attention, feed = layer.attention, layer.feed_forward
    batch, length, width = x.shape
    norms = (layer.attention_norm1, layer.attention_norm2, layer.ffn_norm1, layer.ffn_norm2)
    before, after, feed_before, feed_after = (norm.weight.expand(batch, width) for norm in norms)
    if condition is not None:
        scale, gate, feed_scale, feed_gate = layer.adaLN_modulation(condition).chunk(4, 1)
        before, after = before * (1 + scale), after * gate.tanh()
        feed_before, feed_after = feed_before * (1 + feed_scale), feed_after * feed_gate.tanh()
    weight = torch.cat([attention.to_q.weight, attention.to_k.weight, attention.to_v.weight])
    qkv = fused.linear(fused.norm(x, before, None, EPS), weight).view(batch, length, 3, attention.heads, fused.HEAD)
    head_norms = torch.stack([attention.norm_q.weight, attention.norm_k.weight])
    query, key, value = fused.heads(qkv, head_norms, turns, EPS)
    mixed = fused.attention(query, key, value).transpose(1, 2).reshape(batch, length, width)
    x = fused.norm(fused.linear(mixed, attention.to_out[0].weight), after, x, EPS)
    hidden = fused.linear(fused.norm(x, feed_before, None, EPS), torch.cat([feed.w1.weight, feed.w3.weight]))
    return fused.norm(fused.linear(fused.gate(hidden), feed.w2.weight), feed_after, x, EPS)


def forward(
    model: Any,
    patches: Tensor,
    time: Tensor,
    captions: Captions,
    turns: Tensor,
    *,
    taps: tuple[int, ...] = (),
) -> tuple[Tensor, list[Tensor]]:
    """The model's output for `patches` (batch, tokens, features) and the image tokens after the layers `taps`.

    `time` is (batch,), 0 at noise and 1 at the picture; `turns` is the `rotation` of image and caption.
    """
    count = patches.shape[1]
    image_turns, text_turns = turns[:, :count].contiguous(), turns[:, count:].contiguous()
    condition = model.t_embedder(time * model.t_scale)
    image = model.all_x_embedder[PATCH](patches)
    for layer in model.noise_refiner:
        image = _block(layer, image, image_turns, condition)
    text = torch.where(captions.padding[..., None], model.cap_pad_token, model.cap_embedder(captions.features))
    for layer in model.context_refiner:
        text = _block(layer, text, text_turns, None)
    tokens, tapped = torch.cat([image, text], 1), []
    for number, layer in enumerate(model.layers):
        tokens = _block(layer, tokens, turns, condition)
        if number in taps:
            tapped.append(tokens[:, :count])
    return model.all_final_layer[PATCH](tokens[:, :count], c=condition), tapped
