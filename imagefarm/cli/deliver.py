"""`imagefarm deliver`: uploads a batch's files to a bucket that the farm's operator allows."""

from __future__ import annotations

from typing import Annotated

import typer

from imagefarm.cli.connection import Key, Url, connect
from imagefarm.cli.exit_codes import ExitCode
from imagefarm.cli.output import AsJson, note, print_json
from imagefarm.client import Batch, DeliveryTarget

To = Annotated[
    str | None,
    typer.Option(
        "--deliver", metavar="BUCKET/FOLDER", help="Upload the batch to a bucket of the farm's settings when it is done."
    ),
]


def register(app: typer.Typer) -> None:
    app.command()(deliver)


def deliver(
    batch_id: Annotated[str, typer.Argument(metavar="BATCH", help="Id of a batch.")],
    to: Annotated[str, typer.Argument(metavar="BUCKET/FOLDER", help="A bucket of the farm's settings, and a folder in it.")],
    *,
    wait: Annotated[bool, typer.Option(help="Wait until the files are uploaded.")] = True,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Upload a batch's files to a bucket when it is done. Files that the bucket already has are not sent again."""
    target = delivery_target(to, "BUCKET/FOLDER")
    with connect(url, key) as farm:
        batch = farm.batches.deliver(batch_id, **target)
        if wait:
            try:
                batch = farm.batches.wait_delivery(batch, on_progress=_Errors())
            except KeyboardInterrupt:
                note(f"imagefarm: the delivery of {batch_id} continues")
                raise typer.Exit(ExitCode.INTERRUPTED) from None
    state = batch.delivery.state if batch.delivery else "cancelled"
    if as_json:
        print_json(batch.model_dump(mode="json"))
    else:
        print(f"{batch.id} {batch.state}: {_words(batch)}")
    if state == "failed":
        raise typer.Exit(ExitCode.JOB_FAILED)


def delivery_target(to: str, hint: str) -> DeliveryTarget:
    """`bucket/folder` as the API takes it."""
    bucket, slash, prefix = to.partition("/")
    if not bucket or not slash or not prefix:
        raise typer.BadParameter(f"{to[:80]!r} is not BUCKET/FOLDER, such as shop/spring", param_hint=hint)
    return {"bucket": bucket, "prefix": prefix}


class _Errors:
    """Prints each error of a delivery once."""

    def __init__(self) -> None:
        self.printed: str | None = None

    def __call__(self, batch: Batch) -> None:
        error = batch.delivery.error if batch.delivery else None
        if error is not None and error != self.printed:
            note(f"imagefarm: {error}")
        self.printed = error


def _words(batch: Batch) -> str:
    delivery = batch.delivery
    if delivery is None:
        return "is delivered nowhere"
    place = f"{delivery.bucket}/{delivery.prefix}"
    if delivery.state == "delivered":
        return f"{delivery.files} files are in {place}"
    if delivery.state == "failed":
        return f"not delivered to {place}: {delivery.error}"
    return f"is delivered to {place} when it is done" if delivery.state == "open" else f"on its way to {place}"
