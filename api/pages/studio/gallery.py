"""The studio's gallery: what was made lately, what each picture was made with, and what can be made from it next."""

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
"""Where older ones were asked for below, the newest reach down to them; not further than so many jobs."""


@dataclass(frozen=True, slots=True)
class Part:
    """Which jobs are shown: the newest under the id `before`; down to the id `down_to`, after which the page goes on itself."""

    before: str = ""
    down_to: str = ""

    @property
    def address(self) -> str:
        """Where the same part is found again."""
        given = urlencode({name: value for name, value in asdict(self).items() if value})
        return f"/studio?{given}" if given else "/studio"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One picture and how it came to be."""

    picture: Picture
    file_name: str
    sha256: str
    pixel_sha256: str
    ms: float
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """A job of the gallery: its pictures, its settings, how to ask for it elsewhere, and what may come next."""

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
    """A part of the caller's jobs that did not come from a batch, newest first, and where older ones are."""

    part: Part
    makings: tuple[Making, ...]
    older: str = ""


def gallery(session: Session, app_context: AppContext, caller: Caller, part: Part, url: str) -> Gallery:
    """A part of the caller's jobs that did not come from a batch."""
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
