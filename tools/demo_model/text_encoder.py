"""The text encoder: a three-layer Qwen3 that learns to tell object, colour, background and layout from a prompt.

It is trained before the transformer, with throw-away linear classifiers on its features, and frozen afterwards.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import math
import random
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from tools.demo_model.progress import Progress
from tools.demo_model.prompts import write_prompt
from tools.demo_model.scenes import LABEL_SIZES, training_scene, unseen_scene
from tools.demo_model.tokenizer import TEMPLATE_END, train_tokenizer, wrap

WIDTH = 128
BATCH = 64


def make_text_encoder(vocabulary: int) -> Qwen3Model:
    """A fresh text encoder. The pipeline reads the input of its last layer, so that layer does no work."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=WIDTH // 4,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        use_cache=False,
        initializer_range=0.05,
    )
    return Qwen3Model(config)


def encode(encoder: Qwen3Model, ids: Tensor, mask: Tensor) -> Tensor:
    """Features of token numbers `ids` (batch, length) as ZImagePipeline takes them: (batch, length, WIDTH)."""
    output = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    features: Tensor = output.hidden_states[-2]
    return features


class Classifier(nn.Module):
    """Reads the four labels of a scene from features (batch, WIDTH): one tensor of logits per label."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(WIDTH)
        self.linear = nn.Linear(WIDTH, sum(LABEL_SIZES))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        answers: tuple[Tensor, ...] = self.linear(self.norm(features)).split(LABEL_SIZES, -1)
        return answers


def _batch(
    tokenizer: PreTrainedTokenizerFast, size: int, rng: random.Random, unseen: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Token numbers and mask (size, length) and labels (size, 4) of random prompts."""
    pick = unseen_scene if unseen else training_scene
    scenes = [pick(rng) for _ in range(size)]
    texts = [wrap(write_prompt(scene, rng, rng.randint(3, 9) if rng.random() < 0.12 else None)) for scene in scenes]
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    return encoded.input_ids, encoded.attention_mask, torch.tensor([scene.labels() for scene in scenes])


def train_text_encoder(folder: Path, seconds: float) -> float:
    """Train tokenizer and encoder, save them under `folder`, return the part of unseen prompts read all right.

    The classifiers read a random one of the template's last tokens, so that several tokens carry every label and the
    transformer finds it wherever its attention falls.
    """
    torch.manual_seed(0)
    rng = random.Random(1)
    tokenizer = train_tokenizer()
    tokenizer.save_pretrained(folder / "tokenizer")
    encoder, classifier = make_text_encoder(len(tokenizer)), Classifier()
    parameters = [*encoder.parameters(), *classifier.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01)
    progress = Progress("text encoder", seconds)
    for done in progress.fractions():
        warm = min(1.0, (progress.steps + 1) / 30)
        optimizer.param_groups[0]["lr"] = 3e-3 * warm * max(0.02, 0.5 * (1 + math.cos(math.pi * done)))
        ids, mask, labels = _batch(tokenizer, BATCH, rng)
        features = encode(encoder, ids, mask)
        position = mask.sum(1) - 1 - torch.randint(0, TEMPLATE_END, (len(ids),))
        answers = classifier(features[torch.arange(len(ids)), position])
        losses = [functional.cross_entropy(answer, labels[:, k]) for k, answer in enumerate(answers)]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        right = [float((answer.argmax(1) == labels[:, k]).float().mean()) for k, answer in enumerate(answers)]
        progress.step({"loss": loss.item(), **dict(zip(("object", "color", "background", "layout"), right, strict=True))})
    encoder.eval()
    with torch.no_grad():
        ids, mask, labels = _batch(tokenizer, 1000, rng, unseen=True)
        features = encode(encoder, ids, mask)
        answers = classifier(features[torch.arange(len(ids)), mask.sum(1) - 1])
        right_all = torch.stack([answer.argmax(1) == labels[:, k] for k, answer in enumerate(answers)]).all(0)
    encoder.save_pretrained(folder / "text_encoder")
    share = float(right_all.float().mean())
    print(f"text encoder: {progress.steps} steps; all four labels right on {share:.1%} of 1000 unseen prompts")
    return share
