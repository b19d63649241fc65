"""Training-only classifiers that ask the image tokens between layers for what they must know to draw."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.demo_model.scenes import LABEL_SIZES

TAPS = (0, 1, 3)  # the layers after which the tokens are read
GRID = 16  # the longest edge in tokens: 128 pixels


class AuxiliaryHeads(nn.Module):
    """Position after the first layer, scene and relative place after the second, the clean patch after the fourth.

    Rotary embedding gives an image token no absolute position; without the first auxiliary head, shapes come late or never.
    `width` is the transformer's, `features` a patch's.
    """

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in TAPS)
        self.position = nn.Linear(width, 2 * GRID)
        self.scene = nn.Linear(width, sum(LABEL_SIZES))
        self.place = nn.Linear(width, 2 * GRID)
        self.clean = nn.Linear(width, features)

    def forward(self, tapped: list[Tensor], clean: Tensor, labels: Tensor, grid: int, described: Tensor) -> dict[str, Tensor]:
        """Losses, each a number, for tokens `tapped` (batch, grid * grid, width) after each of TAPS.

        `clean` (batch, grid * grid, features) are the patches without noise, `labels` (batch, 4) the scene's;
        samples whose prompt does not describe the scene, `described` (batch,) = 0, add nothing to the losses of the scene.
        """
        early, middle, late = (norm(tokens) for norm, tokens in zip(self.norms, tapped, strict=True))
        steps = torch.arange(grid)
        rows, columns = steps.repeat_interleave(grid), steps.repeat(grid)
        stride = GRID // grid
        answers = self.scene(middle).split(LABEL_SIZES, -1)
        attributes = torch.stack(
            [
                functional.cross_entropy(
                    answer.transpose(1, 2), labels[:, k : k + 1].expand(-1, grid * grid), reduction="none"
                ).mean(1)
                for k, answer in enumerate(answers)
            ]
        ).sum(0)
        error = (self.clean(late) - clean).square().mean((1, 2))
        return {
            "position": _cross(self.position(early), rows, columns),
            "attributes": (attributes * described).mean(),
            "place": _cross(self.place(middle), rows * stride, columns * stride),
            "clean": (error * described).mean(),
        }


def _cross(logits: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Cross entropy of `logits` (batch, tokens, 2 * GRID) against each token's row and column."""
    batch = len(logits)
    row_loss = functional.cross_entropy(logits[..., :GRID].flatten(0, 1), rows.repeat(batch))
    return row_loss + functional.cross_entropy(logits[..., GRID:].flatten(0, 1), columns.repeat(batch))
