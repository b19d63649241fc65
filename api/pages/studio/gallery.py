"""The studio's gallery: recent jobs with their images and settings, and the actions that start from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from urllib.parse import urlencode

from api.http.context import AppContext
from api.pages.job_cards import JobCard, Picture, job_cards
from api.pages.studio.code_samples import CodeSamples, write_code_samples
from api.pages.studio.form import Size, larger_size
from imagefarm.auth import Caller
from imagefarm.imaging.formats import extension
from imagefarm.store import Session, jobs
from imagefarm.store.attempts import last_workers
from imagefarm.store.job_access_paths import JobFilter
from imagefarm.store.models import Image, Job

SHOWN = 24
MAX_SHOWN = 96
"""Jobs shown at most when the page reaches down to an older one that the reader had loaded."""


@dataclass(frozen=True, slots=True)
class Part:
    """The jobs to show: those older than the id `before`, down to the id `down_to`; the page loads older ones below."""

    before: str = ""
    down_to: str = ""

    @property
    def address(self) -> str:
        """The URL of this range."""
        given = urlencode({name: value for name, value in asdict(self).items() if value})
        return f"/studio?{given}" if given else "/studio"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One image with its hashes, render time in milliseconds and size in bytes."""

    picture: Picture
    file_name: str
    sha256: str
    pixel_sha256: str
    ms: float
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """A job of the gallery: its images, settings, code samples, and the follow-up actions it allows."""

    job: JobCard
    shots: tuple[Shot, ...]
    guidance: str
    sampler: str
    worker: str
    begins_from: str
    code: CodeSamples
    larger: Size | None
    may_upscale: bool


@dataclass(frozen=True, slots=True)
class Gallery:
    """A range of the caller's jobs without a batch, newest first. `older` is the URL of the next range, empty on the last."""

    part: Part
    makings: tuple[Making, ...]
    older: str = ""


def gallery(session: Session, app_context: AppContext, caller: Caller, part: Part, url: str) -> Gallery:
    """Return a range of the caller's jobs that belong to no batch."""
    wanted = JobFilter(tenant_id=caller.tenant_id, single=True)
    found = jobs.list_jobs(session, wanted, before=part.before or None, limit=MAX_SHOWN if part.down_to else SHOWN)
    own = [job for job in found.jobs if job.id >= part.down_to]
    images = jobs.images_of(session, [job.id for job in own])
    made_by = last_workers(session, [job.id for job in own])
    shown = tuple(
        _making(app_context, card, job, images[job.id], worker=made_by.get(job.id, ""), url=url)
        for card, job in zip(job_cards(session, app_context, own), own, strict=True)
    )
    goes_on = found.next_before if len(own) == len(found.jobs) and found.next_before != part.down_to else None
    return Gallery(part, shown, Part(before=goes_on).address if goes_on else "")


def _making(app_context: AppContext, card: JobCard, job: Job, images: list[Image], *, worker: str, url: str) -> Making:
    recipe = job.recipe
    entry = app_context.catalogue.by_alias.get(job.model)
    return Making(
        job=card,
        shots=tuple(_shot(picture, image, job.id) for picture, image in zip(card.pictures, images, strict=True)),
        guidance=f"{float(recipe['guidance']):g}",
        sampler=str(recipe["sampler"]),
        worker=worker,
        begins_from=str(recipe.get("init_image") or (recipe.get("subject") or {}).get("image") or ""),
        code=write_code_samples(url, recipe, job.count),
        larger=larger_size(entry, card.width, card.height) if entry else None,
        may_upscale=not recipe.get("upscale"),
    )


def _shot(picture: Picture, image: Image, job_id: str) -> Shot:
    return Shot(
        picture=picture,
        file_name=f"{job_id}-{image.index}.{extension(image.format)}",
        sha256=image.sha256,
        pixel_sha256=image.pixel_sha256,
        ms=image.ms,
        bytes=image.bytes,
    )
