"""Parameter counts of released models, for planning before their weights are on this machine.

Each was counted on the architecture itself, built on torch's meta device without memory.
"""

from __future__ import annotations

Z_IMAGE = {"transformer": 6_154_908_736, "text_encoder": 4_022_468_096, "vae": 83_819_683}
CLIP_L = 123_060_480
SD_VAE = 83_653_863

PARAMETERS: dict[str, dict[str, int]] = {
    "Tongyi-MAI/Z-Image-Turbo": Z_IMAGE,
    "Tongyi-MAI/Z-Image": Z_IMAGE,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": {"unet": 859_520_964, "text_encoder": CLIP_L, "vae": SD_VAE},
    "stabilityai/sd-turbo": {"unet": 865_910_724, "text_encoder": 340_387_840, "vae": SD_VAE},
    "stabilityai/stable-diffusion-xl-base-1.0": {
        "unet": 2_567_463_684,
        "text_encoder": CLIP_L,
        "text_encoder_2": 694_659_840,
        "vae": SD_VAE,
    },
}
"""Parameters by source and component."""

KEPT_WIDE: dict[str, int] = {"Tongyi-MAI/Z-Image-Turbo": 388_956_160, "Tongyi-MAI/Z-Image": 388_956_160}
"""Parameters of the text encoder that stay at 16 bits when it is quantised: its embedding table, which is only indexed."""
