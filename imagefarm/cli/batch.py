"""`imagefarm batch`: renders the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from imagefarm.cli.connection import Key, Url, complete_model, connect
from imagefarm.cli.deliver import To, delivery_target
from imagefarm.cli.exit_codes import ExitCode
from imagefarm.cli.output import AsJson, note, print_json
from imagefarm.cli.submit import sides
from imagefarm.client import Batch, Client, Quote


def register(app: typer.Typer) -> None:
    app.command()(batch)


def batch(
    table: Annotated[Path, typer.Argument(help="The table: .csv or .jsonl.", exists=True, dir_okay=False, readable=True)],
    *,
    pictures: Annotated[
        Path | None,
        typer.Option(help="ZIP of the pictures that the columns image, mask and subject name.", exists=True, dir_okay=False),
    ] = None,
    update_of: Annotated[
        str | None, typer.Option(help="Id or name of an earlier batch of this table: render only what changed since.")
    ] = None,
    template: Annotated[str | None, typer.Option(help="Prompt with {{ column }}; the default is the column `prompt`.")] = None,
    variants: Annotated[list[str] | None, typer.Option(help="NAME=A|B|C multiplies every row; may be repeated.")] = None,
    model: Annotated[str | None, typer.Option(help="Model; see `imagefarm models`.", autocompletion=complete_model)] = None,
    size: Annotated[str | None, typer.Option(help="Width and height in pixels, such as 512x512.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    seed: Annotated[str | None, typer.Option(help="One seed for all rows; the default is a seed from each SKU.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the batch; the default is the file's.")] = None,
    name_pattern: Annotated[str | None, typer.Option(help="File names, such as {sku}-{view}-{n}.")] = None,
    canary: Annotated[int | None, typer.Option(help="Number of rows to render first; the rest is held until approved.")] = None,
    gate: Annotated[str | None, typer.Option(help="JSON rules on the scores of each picture.")] = None,
    channel: Annotated[list[str] | None, typer.Option(help="Also render files for this channel; may be repeated.")] = None,
    deliver: To = None,
    charset: Annotated[
        str | None, typer.Option(help="Charset of a table that is not UTF-8, such as gb18030 or windows-1252.")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="The separator of the cells: a comma, ; | or a tab.")] = None,
    skip_bad_rows: Annotated[bool, typer.Option(help="Render the good rows of a table that has bad ones.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Render nothing; print the number of pictures and their cost.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder to write the pictures and their manifest to.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the pictures.")] = True,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Submit a table, wait for it, and fetch the pictures into --out. Ctrl-C stops waiting; the batch continues."""
    width, height = sides(size)
    with connect(url, key) as farm:
        made = farm.batches.submit(
            table,
            archive=pictures,
            update_of=update_of,
            template=template,
            variants=_variants(variants),
            model=model,
            width=width,
            height=height,
            steps=steps,
            seed=seed,
            name=name or (None if update_of else table.stem),
            name_pattern=name_pattern,
            canary=canary,
            gate=gate,
            channels=channel or None,
            deliver=delivery_target(deliver, "--deliver") if deliver else None,
            charset=charset,
            delimiter="\t" if delimiter in {"tab", "\\t"} else delimiter,
            on_error="skip" if skip_bad_rows else None,
            dry_run=dry_run or None,
        )
        for remark in (*made.warnings, *made.errors):
            place = remark.field if remark.row is None else f"row {remark.row}, {remark.field}"
            note(f"  {place}: {remark.detail}" + (f"; {remark.remedy}" if remark.remedy else ""))
        files: Sequence[Path] = []
        if wait and made.id is not None:
            try:
                made = wait_for_batch(farm, made)
            except KeyboardInterrupt:
                note(f"imagefarm: {made.id} continues; `imagefarm jobs --batch {made.id}` shows it")
                raise typer.Exit(ExitCode.INTERRUPTED) from None
            files = farm.batches.download(made, out) if out is not None else []
    if as_json:
        print_json(made.model_dump(mode="json") | ({"files": [str(file) for file in files]} if files else {}))
    elif made.quote is not None:
        _print_quote(made.quote)
        _print_changes(made)
    else:
        _print_changes(made)
        _print(made, out if files else None)
    if made.counts.failed or made.counts.cancelled or made.counts.rejected:
        raise typer.Exit(ExitCode.JOB_FAILED)


def wait_for_batch(farm: Client, batch: Batch) -> Batch:
    """Show a progress bar until a batch has ended or waits for approval."""
    return farm.batches.wait(batch, progress=True)


def _variants(given: list[str] | None) -> dict[str, list[str]] | None:
    variants = {}
    for pair in given or []:
        name, equals, values = pair.partition("=")
        if not equals or not name or not values:
            raise typer.BadParameter(f"{pair!r} is not NAME=A|B|C", param_hint="--variants")
        variants[name] = values.split("|")
    return variants or None


def _print_quote(quote: Quote) -> None:
    finish = (
        "no worker serves the models now" if quote.expected_finish_s is None else f"done in about {quote.expected_finish_s:.0f} s"
    )
    print(f"{quote.pictures} pictures, {quote.gpu_seconds:.1f} GPU-seconds, {finish}; the first prompts:")
    for prompt in quote.prompts:
        print(f"  {prompt}")


def _print_changes(batch: Batch) -> None:
    if batch.changes is not None:
        summary = ", ".join(f"{number} {name}" for name, number in batch.changes.items() if number)
        print(f"since {batch.update_of}: {summary or 'nothing'}")


def _print(batch: Batch, folder: Path | None) -> None:
    counts = batch.counts
    numbers = {name: getattr(counts, name) for name in ("succeeded", "failed", "cancelled", "held", "queued", "running")}
    summary = ", ".join(f"{number} {name}" for name, number in numbers.items() if number) or "nothing to do"
    print(f"{batch.id} {batch.state}: {summary}" + (f"; pictures and manifest.csv are in {folder}" if folder else ""))
    if batch.stopped is not None:
        stop = batch.stopped
        print(f"the farm stopped it: {stop.failed} of its jobs failed with {stop.error}; correct that, then resume it")
