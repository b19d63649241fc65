"""`imagefarm picks | finals`: decides about a batch's drafts, and renders finals of the approved ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from imagefarm.cli.batch import wait_for_batch
from imagefarm.cli.connection import Key, Url, connect
from imagefarm.cli.deliver import To, delivery_target
from imagefarm.cli.exit_codes import ExitCode
from imagefarm.cli.output import AsJson, note, print_json, print_table
from imagefarm.cli.submit import sides
from imagefarm.client import Batch, Client, UpscaleFields
from imagefarm.client.fields import PickAction, PickState

BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="Id of a batch.")]


def register(app: typer.Typer) -> None:
    for command in (approve, picks, finals):
        app.command()(command)


def approve(
    batch_id: BatchId,
    *,
    wait: Annotated[bool, typer.Option(help="Wait for the pictures.")] = True,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Approve a batch's canary and queue its other rows."""
    with connect(url, key) as farm:
        batch = farm.batches.approve(batch_id)
        if wait:
            batch, _ = _fetch(farm, batch, None)
    if as_json:
        print_json(batch.model_dump(mode="json"))
    else:
        print(f"{batch.id} {batch.state}: {batch.counts.succeeded} of {batch.counts.accepted} succeeded")
    if batch.counts.failed or batch.counts.cancelled:
        raise typer.Exit(ExitCode.JOB_FAILED)


def picks(
    batch_id: BatchId,
    *,
    only: Annotated[PickState | None, typer.Option(help="Only pictures with this decision.")] = None,
    approve: Annotated[list[str] | None, typer.Option(metavar="IMAGE", help="Picture to approve; may be repeated.")] = None,
    reject: Annotated[list[str] | None, typer.Option(metavar="IMAGE", help="Picture to reject; may be repeated.")] = None,
    reroll: Annotated[
        list[str] | None, typer.Option(metavar="IMAGE", help="Picture to render with another seed; may be repeated.")
    ] = None,
    clear: Annotated[
        list[str] | None, typer.Option(metavar="IMAGE", help="Picture whose decision is cleared; may be repeated.")
    ] = None,
    approve_open: Annotated[bool, typer.Option("--approve-open", help="Approve all pictures without a decision.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Decide about pictures of a batch, or list them with their decisions."""
    given: dict[PickAction, list[str] | None] = {"approve": approve, "reject": reject, "reroll": reroll, "clear": clear}
    wanted: dict[str, PickAction] = {image: action for action, images in given.items() for image in images or []}
    if len(wanted) < sum(len(images or []) for images in given.values()):
        raise typer.BadParameter("a picture is named twice; decide once")
    with connect(url, key) as farm:
        if approve_open:
            approved: dict[str, PickAction] = {image.id: "approve" for image in farm.batches.images(batch_id, pick="open")}
            wanted = approved | wanted
        if wanted or approve_open:
            batch = farm.batches.pick(batch_id, wanted)
            if as_json:
                print_json(batch.model_dump(mode="json"))
            else:
                print(f"{batch.id}: {_numbers(batch)}")
            return
        found = list(farm.batches.images(batch_id, pick=only))
    if as_json:
        print_json([image.model_dump(mode="json") for image in found])
        return
    rows = ((i.id, i.row, i.name, i.pick or "open", (i.scores or {}).get("verdict"), i.seed, i.prompt) for i in found)
    print_table(("image", "row", "name", "pick", "gate", "seed", "prompt"), rows)


def finals(
    batch_id: BatchId,
    *,
    size: Annotated[str, typer.Option(help="Width and height in pixels, such as 1024x1024.")],
    steps: Annotated[int | None, typer.Option(help="Denoising steps; the default is the number of the drafts.")] = None,
    upscale: Annotated[str | None, typer.Option(help="MODEL:SCALE, such as lanczos:2.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new batch.")] = None,
    channel: Annotated[list[str] | None, typer.Option(help="Also render files for this channel; may be repeated.")] = None,
    deliver: To = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write the pictures and their manifest to.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the pictures.")] = True,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Render the approved pictures of a batch as finals. Repeating it renders no picture twice."""
    width, height = sides(size)
    with connect(url, key) as farm:
        made = farm.batches.finals(
            batch_id,
            width or 0,
            height or 0,
            steps=steps,
            upscale=_upscale(upscale),
            name=name,
            channels=channel,
            deliver=delivery_target(deliver, "--deliver") if deliver else None,
        )
        files: Sequence[Path] = []
        if wait:
            made, files = _fetch(farm, made, out)
    if as_json:
        print_json(made.model_dump(mode="json") | ({"files": [str(file) for file in files]} if files else {}))
    else:
        where = f"; pictures and manifest.csv are in {out}" if files else ""
        print(f"{made.id} {made.state}: {made.counts.succeeded} of {made.counts.accepted} succeeded{where}")
    if made.counts.failed or made.counts.cancelled:
        raise typer.Exit(ExitCode.JOB_FAILED)


def _fetch(farm: Client, batch: Batch, out: Path | None) -> tuple[Batch, Sequence[Path]]:
    try:
        ended = wait_for_batch(farm, batch)
    except KeyboardInterrupt:
        note(f"imagefarm: {batch.id} continues; `imagefarm jobs --batch {batch.id}` shows it")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    return ended, farm.batches.download(ended, out) if out is not None else []


def _upscale(text: str | None) -> UpscaleFields | None:
    if text is None:
        return None
    model, colon, scale = text.partition(":")
    if not model or (colon and not scale.isdigit()):
        raise typer.BadParameter(f"{text!r} is not MODEL:SCALE", param_hint="--upscale")
    return {"model": model, "scale": int(scale)} if colon else {"model": model}


def _numbers(batch: Batch) -> str:
    numbers = batch.picks
    return f"{numbers.approved} approved, {numbers.rejected} rejected, {numbers.rerolled} re-rolled, {numbers.open} open"
