"""The rendering workers of the farm. Know no Flask."""

import sys

# Where torchao is installed, diffusers and transformers import it with themselves, which takes seconds and fills the log.
# Only the tiers with 8-bit weights need it (worker/memory/int8.py), so that everything else is told that it is not there.
sys.modules.setdefault("torchao", None)  # type: ignore[arg-type]
