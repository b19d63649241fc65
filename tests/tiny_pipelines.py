"""Tiny pipelines with random weights, of the real diffusers classes: made offline in a fraction of a second, a few MB each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImageOmniPipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    Siglip2ImageProcessor,
    Siglip2VisionConfig,
    Siglip2VisionModel,
)

CHAT_TEMPLATE = (
    "{%- for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
}


def z_image(seed: int = 0) -> ZImagePipeline:
    """8 times 8 pixels a latent, 16 latent channels, sides in multiples of 16."""
    torch.manual_seed(seed)
    return ZImagePipeline(**z_image_parts())


def z_image_omni(seed: int = 0) -> ZImageOmniPipeline:
    """As `z_image`, with a vision encoder for the image that a prompt changes."""
    torch.manual_seed(seed)
    vision = Siglip2VisionConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, num_patches=256, patch_size=16
    )
    return ZImageOmniPipeline(
        **z_image_parts(siglip_feat_dim=24),
        siglip=Siglip2VisionModel(vision).eval(),
        siglip_processor=Siglip2ImageProcessor(patch_size=16, max_num_patches=256),
    )


def z_image_parts(**transformer: Any) -> dict[str, Any]:
    """What both Z-Image pipelines are made of; `transformer` are more fields of its configuration."""
    tokenizer = byte_tokenizer()
    encoder = Qwen3Model(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
        )
    ).eval()
    denoiser = ZImageTransformer2DModel(
        in_channels=16,
        dim=48,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        axes_dims=[8, 8, 8],
        axes_lens=[1024, 512, 512],
        **transformer,
    ).eval()
    with torch.no_grad():
        # zeros in the class, not in a trained model: padding must matter in the tests too
        for name, parameter in denoiser.named_parameters():
            if name.endswith("pad_token"):
                parameter.normal_(std=0.02)
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": vae(16, scaling_factor=0.3611, shift_factor=0.1159),
        "text_encoder": encoder,
        "tokenizer": tokenizer,
        "transformer": denoiser,
    }


def stable_diffusion(seed: int = 0, scheduler: Any = None) -> StableDiffusionPipeline:
    """8 times 8 pixels a latent, 4 latent channels."""
    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    return StableDiffusionPipeline(
        vae=vae(4, scaling_factor=0.18215, quant=True),
        text_encoder=CLIPTextModel(clip_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**UNET, cross_attention_dim=32, attention_head_dim=4).eval(),
        scheduler=scheduler or EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(seed: int = 0) -> StableDiffusionXLPipeline:
    """As `stable_diffusion`, with two text encoders and size conditions."""
    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    unet = UNet2DConditionModel(
        **UNET,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=8 * 6 + 32,
        cross_attention_dim=64,
    ).eval()
    return StableDiffusionXLPipeline(
        vae=vae(4, scaling_factor=0.13025, quant=True),
        text_encoder=CLIPTextModel(clip_config(tokenizer)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        tokenizer_2=clip_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
        ),
    )


def save(pipe: Any, folder: Path) -> Path:
    """Write a pipeline as a diffusers folder of safetensors files."""
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def save_lora(pipe: Any, folder: Path, seed: int = 1) -> Path:
    """Write a random LoRA for the denoiser of `pipe`; the pipeline is left as it was."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    torch.manual_seed(seed)
    name = "unet" if hasattr(pipe, "unet") else "transformer"
    denoiser = getattr(pipe, name)
    denoiser.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_v"], init_lora_weights="gaussian"))
    with torch.no_grad():
        for parameter_name, parameter in denoiser.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.2)
    type(pipe).save_lora_weights(folder, **{f"{name}_lora_layers": get_peft_model_state_dict(denoiser)})
    denoiser.delete_adapters("default")
    return folder


def vae(latent_channels: int, *, scaling_factor: float, shift_factor: float | None = None, quant: bool = False) -> AutoencoderKL:
    """A decoder of 8 times, whose pictures have contrast (a random one draws near flat grey)."""
    model = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=latent_channels,
        block_out_channels=[16, 16, 32, 32],
        layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        norm_num_groups=8,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
        use_quant_conv=quant,
        use_post_quant_conv=quant,
    ).eval()
    with torch.no_grad():
        model.decoder.conv_out.weight.mul_(4)
    return model


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """256 byte symbols, no merges: takes any text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<|vision_start|>", "<|vision_end|>"],
        model_max_length=512,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def clip_tokenizer() -> CLIPTokenizer:
    """Every byte symbol, inside and at the end of a word, no merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{symbol}</w>" for symbol in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=77)


def clip_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    size = len(tokenizer)
    return CLIPTextConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=32,
        hidden_act="gelu",
        max_position_embeddings=77,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        pad_token_id=size - 1,
    )
