"""`imagefarm submit`: submits one job, waits for it, and downloads its images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from imagefarm.cli.connection import Key, Url, complete_model, connect
from imagefarm.cli.exit_codes import ExitCode
from imagefarm.cli.output import AsJson, note, print_json, print_table
from imagefarm.cli.recipe_options import MASKS, finite, loras_of, picture_of, placement_of, sent, subject_of, upscale_of
from imagefarm.client import Client, Job
from imagefarm.recipe import Format
from imagefarm.states import JobState, PriorityClass

PICTURE = "PICTURE"

Loras = Annotated[list[str] | None, typer.Option(metavar="NAME[:WEIGHT]", help="LoRA of the catalogue; may be repeated.")]
Mask = Annotated[
    str | None, typer.Option(metavar=PICTURE, help="Mask: its white part is repainted. It has the size of --init-image.")
]
Strength = Annotated[float | None, typer.Option(help="Denoising strength on --init-image, above 0 and up to 1.", callback=finite)]
SubjectMask = Annotated[
    str | None,
    typer.Option(metavar=f"alpha|white|{PICTURE}", help="The part of the photo that is the product; the default is alpha."),
]
SubjectPlace = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y[,SCALE]", help="Centre of the subject as shares of the picture, and picture pixels per photo pixel."
    ),
]
UpscaleTo = Annotated[str | None, typer.Option(metavar="MODEL[:SCALE]", help="Enlarge the finished picture, such as lanczos:2.")]


def register(app: typer.Typer) -> None:
    app.command()(submit)


def submit(
    prompt: Annotated[str, typer.Argument(help="The prompt.")],
    *,
    model: Annotated[str | None, typer.Option(help="Model; see `imagefarm models`.", autocompletion=complete_model)] = None,
    size: Annotated[str | None, typer.Option(help="Width and height in pixels, such as 512x512.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.", callback=finite)] = None,
    seed: Annotated[str | None, typer.Option(help="Seed of the first picture, 0 to 2^64-1.")] = None,
    count: Annotated[int, typer.Option(help="Number of pictures: seed, seed + 1, ...")] = 1,
    negative: Annotated[str | None, typer.Option(help="The negative prompt.")] = None,
    sampler: Annotated[str | None, typer.Option(help="Sampler; the default is the model's.")] = None,
    lora: Loras = None,
    init_image: Annotated[str | None, typer.Option(metavar=PICTURE, help="Picture to start from.")] = None,
    mask: Mask = None,
    strength: Strength = None,
    subject: Annotated[str | None, typer.Option(metavar=PICTURE, help="Photo of a product that stays pixel for pixel.")] = None,
    subject_mask: SubjectMask = None,
    subject_place: SubjectPlace = None,
    shadow: Annotated[float | None, typer.Option(help="Darkness of the subject's shadow, 0 to 1.", callback=finite)] = None,
    feather: Annotated[float | None, typer.Option(help="Width of the subject's soft edge in pixels.", callback=finite)] = None,
    upscale: UpscaleTo = None,
    format: Annotated[Format | None, typer.Option(help="File format; the default is png.")] = None,
    quality: Annotated[int | None, typer.Option(help="Quality of JPEG and WebP, 1 to 100.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Label of the job, NAME=VALUE; may be repeated.")] = None,
    priority: Annotated[PriorityClass, typer.Option(help="Priority class.")] = PriorityClass.INTERACTIVE,
    out: Annotated[Path | None, typer.Option(help="Folder to write the pictures to.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the pictures.")] = True,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Submit a job, wait for it, and fetch its pictures into --out. Ctrl-C stops waiting; the job continues.

    A PICTURE is a file here (it is uploaded first), a URL, or the id of an asset.
    """
    width, height = sides(size)
    fields = {
        "model": model,
        "width": width,
        "height": height,
        "steps": steps,
        "guidance": guidance,
        "seed": seed,
        "count": count,
        "negative_prompt": negative,
        "sampler": sampler,
        "loras": loras_of(lora or []),
        "init_image": picture_of(init_image, "--init-image"),
        "mask": picture_of(mask, "--mask"),
        "strength": strength,
        "subject": subject_of(
            picture_of(subject, "--subject"),
            mask=picture_of(subject_mask, "--subject-mask", words=MASKS),
            place=placement_of(subject_place),
            shadow=shadow,
            feather=feather,
        ),
        "upscale": upscale_of(upscale),
        "format": format,
        "quality": quality,
        "labels": _labels(label or []),
        "priority": str(priority),
    }
    with connect(url, key) as farm:
        job = farm.jobs.submit(prompt, **sent(farm, fields))
        for warning in job.warnings:
            note(f"imagefarm: {warning}")
        if wait:
            job = _wait(farm, job)
        paths = list(farm.jobs.download(job, out)) if out is not None and job.state == JobState.SUCCEEDED else []
    if as_json:
        print_json(job.model_dump(mode="json") | ({"files": [str(path) for path in paths]} if out else {}))
    else:
        _print(job, paths)
    if job.is_final and job.state != JobState.SUCCEEDED:
        raise typer.Exit(ExitCode.JOB_FAILED)


def _wait(farm: Client, job: Job) -> Job:
    try:
        return farm.jobs.wait(job, progress=True)
    except KeyboardInterrupt:
        note(f"imagefarm: {job.id} continues; `imagefarm show {job.id}` shows it, `imagefarm cancel {job.id}` ends it")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def sides(size: str | None) -> tuple[int | None, int | None]:
    """Width and height of a size such as 512x512."""
    if size is None:
        return None, None
    found = re.fullmatch(r"(\d{1,5})[x×*](\d{1,5})", size.strip().lower())
    if found is None:
        raise typer.BadParameter(f"{size!r} is not a size; write it like 512x512", param_hint="--size")
    return int(found[1]), int(found[2])


def _labels(pairs: list[str]) -> dict[str, str]:
    labels = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--label")
        labels[name] = value
    return labels


def _print(job: Job, paths: list[Path]) -> None:
    if job.state == JobState.SUCCEEDED:
        where: list[object] = list(paths) or [image.url for image in job.images]
        rows = [
            (place, image.seed, f"{image.width}x{image.height}", image.sha256[:12])
            for place, image in zip(where, job.images, strict=True)
        ]
        print_table(("picture", "seed", "size", "sha256"), rows)
    elif job.is_final:
        note(f"imagefarm: {job.id} {job.state}: {job.reason}")
    else:
        print(f"{job.id} {job.state}: {job.reason}")
