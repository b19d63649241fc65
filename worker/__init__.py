"""The rendering workers of the farm. They do not import Flask."""

import sys

# If torchao is installed, diffusers and transformers import it with themselves, which takes seconds and fills the log. Only the
# tiers with 8-bit weights need it (worker/memory/int8.py), so its import is blocked for everything else.
sys.modules.setdefault("torchao", None)  # type: ignore[arg-type]
