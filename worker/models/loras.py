"""The LoRAs of recipes: which are loaded on a pipeline, and how they change between running sets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imagefarm.catalogue import Catalogue
from imagefarm.errors import RenderError
from imagefarm.logs import get_logger
from imagefarm.model_entry import ModelEntry
from imagefarm.recipe import Lora
from worker.failures import is_out_of_memory
from worker.models.lora_coverage import placed_share
from worker.weights.digests import WeightDigests
from worker.weights.model_files import lora_file

log = get_logger(__name__)

Wanted = tuple[tuple[str, float], ...]


class LoraSet:
    """The LoRAs of one pipeline. They apply to the whole model, so all images of a running set share them.

    Without LoRAs the pipeline is bit for bit as it was loaded.
    """

    def __init__(self, pipe: Any, entry: ModelEntry, catalogue: Catalogue, digests: WeightDigests) -> None:
        self.facts: list[dict[str, Any]] = []
        """Name, weight and SHA-256 of each active LoRA, for the audit."""
        self._pipe = pipe
        self._entry = entry
        self._catalogue = catalogue
        self._digests = digests
        self._in_force: Wanted = ()
        self._loaded: set[str] = set()
        self._placed: dict[str, float] = {}

    @property
    def key(self) -> str:
        """Identifies this set of LoRAs; empty without any. A LoRA may change the text encoder too."""
        return ",".join(f"{fact['sha256']}:{fact['weight']:g}" for fact in self.facts)

    @property
    def warnings(self) -> list[str]:
        """`lora_partial` if an active LoRA has weights that do not fit into the model; `facts` has the share that does."""
        return ["lora_partial"] if any("placed" in fact for fact in self.facts) else []

    def use(self, loras: Sequence[Lora]) -> None:
        """Make exactly these LoRAs active. Must not be called while a running set is in progress.

        Raises RenderError("model_invalid") naming the LoRA; then none is active.
        """
        # sorted: floating-point sums depend on their order, and a recipe's image must not
        wanted: Wanted = tuple(sorted((lora.name, lora.weight) for lora in loras))
        if wanted == self._in_force:
            return
        try:
            self._change(wanted)
        except BaseException:
            self._clear()
            raise

    def _change(self, wanted: Wanted) -> None:
        if not wanted:
            # unloaded rather than disabled, because a disabled LoRA still costs some time at every layer
            self._clear()
            return
        facts = []
        for name, weight in wanted:
            file = lora_file(self._catalogue, name)
            if name not in self._loaded:
                self._load(name, file)
            fact = {"name": name, "weight": weight, "sha256": self._digests.of(file)}
            facts.append(fact | ({"placed": self._placed[name]} if self._placed[name] < 1 else {}))
        unwanted = self._loaded - {name for name, _ in wanted}
        if unwanted:
            self._pipe.delete_adapters([_adapter(name) for name in unwanted])
            self._loaded -= unwanted
        self._pipe.set_adapters([_adapter(name) for name, _ in wanted], [weight for _, weight in wanted])
        self._in_force, self.facts = wanted, facts

    def _load(self, name: str, file: Path) -> None:
        options = {"use_safetensors": True, "local_files_only": True, "adapter_name": _adapter(name)}
        try:
            self._pipe.load_lora_weights(str(file.parent), weight_name=file.name, **options)
        except (ValueError, RuntimeError, KeyError, OSError) as error:
            if is_out_of_memory(error):
                raise
            raise self._mismatch(name, " ".join(str(error).split())[:300]) from error
        # diffusers skips weights for another model without an error
        if not any(_adapter(name) in adapters for adapters in self._pipe.get_list_adapters().values()):
            raise self._mismatch(name, "none of its weights fits into the model")
        self._loaded.add(name)
        self._placed[name] = placed_share(self._pipe, _adapter(name), file)
        if self._placed[name] < 1:
            log.warning("lora.partial", lora=name, model=self._entry.name, placed=self._placed[name])

    def _mismatch(self, name: str, why: str) -> RenderError:
        return RenderError("model_invalid", f"LoRA {name} does not fit model {self._entry.name}: {why}")

    def _clear(self) -> None:
        self._pipe.unload_lora_weights()
        self._in_force, self._loaded, self.facts = (), set(), []


def _adapter(name: str) -> str:
    """The name for peft, which makes it part of a module's path, where a dot would be a separator."""
    return "lora_" + hashlib.sha256(name.encode()).hexdigest()[:12]
