"""Replay: renders a job's recipe again and compares the images with the originals."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from PIL import Image as Picture
from PIL import ImageChops, ImageStat
from sqlalchemy.orm import Session

from imagefarm.errors import Conflict, NotFound
from imagefarm.output_store import OutputStore
from imagefarm.recipe import JobRequest
from imagefarm.states import JobState
from imagefarm.store.jobs import images_of, visible_job
from imagefarm.store.models import Image, Job

LABEL = "replay_of"
"""The label of a replay: the id of the original job."""
NEAR_DB = 40.0
"""PSNR in dB from which two images count as near: visually identical."""
CAUSES: tuple[tuple[str, str], ...] = (
    ("recipe_hash", "the recipe"),
    ("model.digest", "the model's weights"),
    ("device", "the device"),
    ("dtype", "the number format"),
    ("versions.torch", "the version of torch"),
    ("versions.diffusers", "the version of diffusers"),
    ("versions.transformers", "the version of transformers"),
    ("worker.host", "the host"),
    ("step_shapes", "the images that shared its forward passes"),
    ("decode", "the images that were decoded with it"),
)
"""Causes of a changed image: the key in the audit record, and the name of each."""


class Verdict(StrEnum):
    IDENTICAL = "identical"
    NEAR = "near"
    DIFFERENT = "different"
    MISSING = "missing"
    """One of the two images does not exist: not rendered yet, or its file is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One image of a replay. `psnr_db` is None where the pixels are equal or cannot be compared. `differs` names the conditions
    that changed, whether or not the pixels are equal."""

    index: int
    verdict: Verdict
    psnr_db: float | None
    differs: tuple[str, ...]


def replay_request(job: Job) -> JobRequest:
    """The request that renders this job's recipe again, with the same seeds. Raises Conflict for a job that has not succeeded."""
    if job.state != JobState.SUCCEEDED:
        raise Conflict(f"job {job.id} has not succeeded: there is nothing to hold a replay against")
    asked = {name: value for name, value in job.recipe.items() if value is not None}
    return JobRequest.model_validate(asked | {"count": job.count, "labels": {LABEL: job.id}})


def compare(outputs: OutputStore, then: Sequence[Image], now: Sequence[Image], count: int) -> tuple[Comparison, ...]:
    """Compare two jobs of one recipe image by image. Decodes files only where the pixel hashes differ."""
    old, new = ({image.index: image for image in images} for images in (then, now))
    return tuple(_compared(outputs, index, old.get(index), new.get(index)) for index in range(count))


WORST_FIRST = (Verdict.MISSING, Verdict.DIFFERENT, Verdict.NEAR, Verdict.IDENTICAL)


@dataclass(frozen=True, slots=True)
class ComparedJob:
    """A replay and its original job."""

    original_id: str
    images: tuple[Comparison, ...]

    @property
    def verdict(self) -> Verdict:
        """The result of the worst image."""
        return min((one.verdict for one in self.images), key=WORST_FIRST.index, default=Verdict.MISSING)


def compare_with_original(
    session: Session, outputs: OutputStore, job: Job, tenant_id: str | None, *, decode_slots: AbstractContextManager[Any]
) -> ComparedJob | None:
    """How each image of a replay compares; None for a job that is not a replay of this tenant's job (None: any tenant's).

    `decode_slots` is held while images are decoded.
    """
    try:
        original = visible_job(session, job.labels.get(LABEL, ""), tenant_id)
    except NotFound:
        return None
    images = images_of(session, [original.id, job.id])
    with decode_slots:
        found = compare(outputs, images[original.id], images[job.id], min(job.count, original.count))
    return ComparedJob(original.id, found)


def _compared(outputs: OutputStore, index: int, old: Image | None, new: Image | None) -> Comparison:
    if old is None or new is None:
        return Comparison(index=index, verdict=Verdict.MISSING, psnr_db=None, differs=())
    differs = tuple(words for path, words in CAUSES if _at(old.audit, path) != _at(new.audit, path))
    if old.pixel_sha256 == new.pixel_sha256:
        return Comparison(index=index, verdict=Verdict.IDENTICAL, psnr_db=None, differs=differs)
    try:
        psnr = psnr_db(outputs.read(old.storage_key), outputs.read(new.storage_key))
    except FileNotFoundError:
        return Comparison(index=index, verdict=Verdict.MISSING, psnr_db=None, differs=differs)
    near = psnr is not None and psnr >= NEAR_DB
    return Comparison(index=index, verdict=Verdict.NEAR if near else Verdict.DIFFERENT, psnr_db=psnr, differs=differs)


def psnr_db(one: bytes, other: bytes) -> float | None:
    """PSNR of two images in dB; None if their sizes differ, infinite if they are equal."""
    with Picture.open(io.BytesIO(one)) as first, Picture.open(io.BytesIO(other)) as second:
        if first.size != second.size:
            return None
        squares = ImageStat.Stat(ImageChops.difference(first.convert("RGB"), second.convert("RGB"))).sum2
    error = sum(squares) / (3 * first.size[0] * first.size[1])
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _at(record: Mapping[str, Any], path: str) -> Any:
    value: Any = record
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
