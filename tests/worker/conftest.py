"""Tiny models on disk with a catalogue of their own, loaded once for all engine tests."""

from __future__ import annotations

import pytest
import torch

from imagefarm.logs import configure_logs
from imagefarm.settings import PROJECT_ROOT, load_settings
from tests import tiny_pipelines
from tests.worker.model_jobs import SmallModels

torch.set_num_threads(1)

CATALOGUE = """
default = "tiny-z-image"

[models.demo]
title = "The project's demo"
source = "DEMO"
family = "z-image"
license = "none"
features = ["init_image", "inpaint"]
defaults = { width = 64, height = 64, steps = 8, guidance = 0.0, sampler = "flow-euler" }
limits = { min_side = 64, max_side = 64, multiple = 16, max_steps = 50, max_count = 16 }

[models.tiny-z-image]
title = "Tiny Z-Image"
source = "z-image"
family = "z-image"
license = "none"
features = ["negative_prompt", "init_image", "inpaint", "loras"]
defaults = { width = 64, height = 64, steps = 4, guidance = 0.0, sampler = "flow-euler" }
limits = { min_side = 32, max_side = 512, multiple = 16, max_steps = 50, max_count = 16 }

[models.tiny-omni]
title = "Tiny Z-Image Omni"
source = "omni"
family = "z-image-omni"
license = "none"
features = ["negative_prompt", "init_image"]
defaults = { width = 64, height = 64, steps = 4, guidance = 3.0, sampler = "flow-euler" }
limits = { min_side = 32, max_side = 512, multiple = 16, max_steps = 50, max_count = 16 }

[models.tiny-sd15]
title = "Tiny Stable Diffusion"
source = "sd15"
family = "sd15"
license = "none"
features = ["negative_prompt", "init_image", "inpaint", "loras"]
samplers = ["euler", "euler-ancestral", "dpm++-2m", "ddim", "lcm"]
defaults = { width = 64, height = 64, steps = 4, guidance = 5.0, sampler = "euler" }
limits = { min_side = 32, max_side = 512, multiple = 8, max_steps = 50, max_count = 16 }

[models.tiny-lcm]
title = "Tiny Stable Diffusion with an LCM LoRA"
source = "sd15"
family = "sd15"
license = "none"
adapter = { source = "lcm-lora", weight = 0.8 }
samplers = ["lcm"]
defaults = { width = 64, height = 64, steps = 4, guidance = 1.0, sampler = "lcm" }
limits = { min_side = 32, max_side = 512, multiple = 8, max_steps = 16, max_count = 16 }

[models.tiny-sdxl]
title = "Tiny Stable Diffusion XL"
source = "sdxl"
family = "sdxl"
license = "none"
features = ["negative_prompt", "init_image", "inpaint"]
samplers = ["euler", "euler-ancestral", "dpm++-2m", "ddim"]
defaults = { width = 64, height = 64, steps = 4, guidance = 5.0, sampler = "euler" }
limits = { min_side = 32, max_side = 512, multiple = 8, max_steps = 50, max_count = 16 }

[loras."ink.v1"]
source = "ink"
families = ["sd15"]

[loras.clay]
source = "clay"
families = ["sd15"]

[loras.brush]
source = "brush"
families = ["z-image"]

[loras.lost]
source = "./lost"
families = ["z-image"]

[loras.wrong]
source = "ink"
families = ["z-image"]
"""


@pytest.fixture(scope="session", autouse=True)
def _plain_logs() -> None:
    # the default of an unconfigured logger prints every tensor of a traceback
    configure_logs(load_settings(log_format="json"), "test")


@pytest.fixture(scope="session")
def models(loads_model: None, tmp_path_factory: pytest.TempPathFactory) -> SmallModels:
    """Every tiny model in a folder with its models.toml. Tests that change a file work on a copy of the folder."""
    folder = tmp_path_factory.mktemp("models")
    z_image = tiny_pipelines.z_image()
    tiny_pipelines.save(z_image, folder / "z-image")
    tiny_pipelines.save_lora(z_image, folder / "brush")
    tiny_pipelines.save(tiny_pipelines.z_image_omni(), folder / "omni")
    sd15 = tiny_pipelines.stable_diffusion()
    tiny_pipelines.save(sd15, folder / "sd15")
    for seed, name in enumerate(("lcm-lora", "ink", "clay")):
        tiny_pipelines.save_lora(sd15, folder / name, seed)
    tiny_pipelines.save(tiny_pipelines.stable_diffusion_xl(), folder / "sdxl")
    (folder / "models.toml").write_text(CATALOGUE.replace("DEMO", str(PROJECT_ROOT / "models" / "demo")))
    return SmallModels(folder)
