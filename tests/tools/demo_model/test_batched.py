"""The forward pass that training uses is the stock model's, in values and in gradients."""

import os
import shutil

import pytest
import torch
from diffusers import ZImageTransformer2DModel

from tools.demo_model import fused
from tools.demo_model.batched import Captions, forward, rotation, to_patches

HAS_COMPILER = shutil.which("cc") or shutil.which("gcc") or os.environ.get("CI")  # there it fails rather than skips
pytestmark = pytest.mark.skipif(not HAS_COMPILER, reason="needs a C compiler")
torch.set_num_threads(1)


def small_model() -> ZImageTransformer2DModel:
    torch.manual_seed(0)
    model = ZImageTransformer2DModel(
        in_channels=8,
        dim=64,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        axes_dims=[8, 12, 12],
        axes_lens=[256, 64, 64],
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("adaLN", "final", "norm", "pad_token")):
                parameter.normal_(mean=0.3, std=0.2)
    return model


@pytest.mark.process
@pytest.mark.parametrize(("bfloat16", "tolerance"), [(False, 1e-4), (True, 0.05)])
def test_forward_and_gradients_are_the_stock_ones(bfloat16: bool, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "has_fast_bfloat16", lambda: bfloat16)
    model = small_model()
    latents, time = torch.randn(2, 8, 16, 16), torch.tensor([0.3, 0.8])
    texts = [torch.randn(20, 32), torch.randn(29, 32)]
    weights = torch.randn(2, 8, 16, 16)

    stock = torch.stack(model(list(latents[:, :, None].unbind(0)), time, texts, return_dict=False)[0])[:, :, 0]
    (stock * weights).sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)

    features, padding = torch.zeros(2, 32, 32), torch.ones(2, 32, dtype=torch.bool)
    for row, text in enumerate(texts):
        features[row, : len(text)], padding[row, : len(text)] = text, False
    captions = Captions(features, padding)
    out, tapped = forward(model, to_patches(latents), time, captions, rotation(model, 32, 8, 8), taps=(0, 1))
    (out * to_patches(weights)).sum().backward()

    assert [tokens.shape for tokens in tapped] == [(2, 64, 64)] * 2
    assert (out - to_patches(stock)).abs().max() < tolerance * stock.abs().max()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            difference = (parameter.grad - expected[name]).norm() / (expected[name].norm() + 1e-9)
            assert difference < tolerance, name


@pytest.mark.process
def test_gate_stays_finite_at_large_values() -> None:
    x = torch.ones(4, 64)
    x[:, :32] = torch.tensor([-1e4, -100.0, 100.0, 1e4])[:, None]
    x.requires_grad_()
    out = fused.gate(x)
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert torch.allclose(out[:, 0], torch.tensor([0.0, 0.0, 100.0, 1e4]), atol=1e-6)
