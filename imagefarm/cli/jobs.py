"""`imagefarm jobs | show | cancel | retry | replay`: lists, shows and changes jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from imagefarm.cli.connection import Key, Url, complete_model, connect
from imagefarm.cli.exit_codes import ExitCode
from imagefarm.cli.output import AsJson, print_json, print_table
from imagefarm.client import BulkResult, Job
from imagefarm.states import JobState

Ids = Annotated[list[str] | None, typer.Argument(help="Ids of jobs.", metavar="[JOB...]")]
Every = Annotated[bool, typer.Option("--all", help="All jobs that match the filters below; asks before it acts.")]
States = Annotated[list[JobState] | None, typer.Option(help="Only jobs in this state; may be repeated.")]
Model = Annotated[str | None, typer.Option(help="Only jobs of this model.", autocompletion=complete_model)]
InBatch = Annotated[str | None, typer.Option(help="Only jobs of this batch.")]
Labels = Annotated[list[str] | None, typer.Option(help="Only jobs with this label, NAME:VALUE; may be repeated.")]
Words = Annotated[str | None, typer.Option(help="Only jobs with this text in their prompt.")]
Expected = Annotated[
    int | None, typer.Option(min=0, help="Number of jobs that you expect: acts without asking, and refuses if more match.")
]


def register(app: typer.Typer) -> None:
    for command in (jobs, show, cancel, retry, replay):
        app.command()(command)


def jobs(
    *,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    model: Model = None,
    batch: InBatch = None,
    label: Labels = None,
    text: Words = None,
    limit: Annotated[int, typer.Option(min=1, help="Largest number of jobs, newest first.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List jobs, newest first."""
    with connect(url, key) as farm:
        found = list(farm.jobs.list(limit=limit, state=state, model=model, batch=batch, label=label or None, text=text))
    if as_json:
        print_json([job.model_dump(mode="json") for job in found])
        return
    columns = ("job", "state", "model", "count", "seed", "created", "prompt")
    print_table(columns, ((job.id, job.state, *_facts(job)) for job in found))


def show(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="Id of a job.")],
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show one job: its state and the reason, its recipe, its pictures."""
    with connect(url, key) as farm:
        job = farm.jobs.get(job_id)
    if as_json:
        print_json(job.model_dump(mode="json"))
        return
    rows: list[tuple[object, object]] = [
        ("job", job.id),
        ("state", job.state),
        ("pending reason", job.pending_reason.message if job.pending_reason else ""),
        ("attempt", job.attempt),
    ]
    if job.error is not None:
        rows.append(("error", f"{job.error.code}: {job.error.detail}"))
    rows += [(f"label {name}", value) for name, value in job.labels.items()]
    rows += [(name, value) for name, value in job.recipe.items() if value not in (None, "", [], ())]
    rows += [("recipe hash", job.recipe_hash), ("created", job.created_at), ("finished", job.finished_at)]
    rows += [(f"picture {image.index + 1}", f"{image.url}  seed {image.seed}  sha256 {image.sha256}") for image in job.images]
    print_table(("", ""), rows)


def cancel(
    job_ids: Ids = None,
    *,
    every: Every = False,
    state: States = None,
    model: Model = None,
    batch: InBatch = None,
    label: Labels = None,
    text: Words = None,
    expected: Expected = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Cancel jobs, or with --all every job that matches. Jobs that have ended stay unchanged."""
    filters = _filters(job_ids, every=every, state=state, model=model, batch=batch, label=label, text=text)
    with connect(url, key) as farm:
        if filters is None:
            _change(job_ids or [], farm.jobs.cancel, as_json)
        else:
            _change_all("cancel", farm.jobs.cancel_all, filters, expected, as_json)


def retry(
    job_ids: Ids = None,
    *,
    every: Every = False,
    state: States = None,
    model: Model = None,
    batch: InBatch = None,
    label: Labels = None,
    text: Words = None,
    expected: Expected = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Queue failed or cancelled jobs again, or with --all every job that matches."""
    filters = _filters(job_ids, every=every, state=state, model=model, batch=batch, label=label, text=text)
    with connect(url, key) as farm:
        if filters is None:
            _change(job_ids or [], farm.jobs.retry, as_json)
        else:
            _change_all("retry", farm.jobs.retry_all, filters, expected, as_json)


def _filters(job_ids: list[str] | None, *, every: bool, **given: Any) -> dict[str, Any] | None:
    """The filters of --all; None if jobs are named."""
    filters = {name: value for name, value in given.items() if value}
    if every == bool(job_ids) or (filters and not every):
        raise typer.BadParameter("name jobs, or give --all with the filters of `imagefarm jobs`")
    return filters if every else None


def _change_all(
    act: str, change: Callable[..., BulkResult], filters: dict[str, Any], expected: int | None, as_json: bool
) -> None:
    if expected is None:
        expected = change(**filters).matched
        if not expected or not typer.confirm(f"{expected} jobs match. {act.capitalize()} them?", err=True):
            print_json({"matched": expected, "changed": 0}) if as_json else print_table(("matched", "changed"), [(expected, 0)])
            return
    done = change(expected=expected, **filters)
    print_json(done.model_dump()) if as_json else print_table(("matched", "changed"), [(done.matched, done.changed)])


def replay(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="Id of a job that has succeeded.")],
    *,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds to wait for the pictures; without it there is no limit.")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Render a job again with the same seeds, and compare the pictures."""
    with connect(url, key) as farm:
        again = farm.jobs.wait(farm.jobs.replay(job_id), timeout_s=timeout, check=True)
        compared = farm.jobs.get_replay(again)
    if as_json:
        print_json(compared.model_dump(mode="json"))
    else:
        rows = [
            (one.index + 1, one.verdict, "" if one.psnr_db is None else f"{one.psnr_db:.1f} dB", ", ".join(one.differs))
            for one in compared.images
        ]
        print_table(("picture", "verdict", "PSNR", "differences"), rows)
    if compared.verdict not in {"identical", "near"}:
        raise typer.Exit(ExitCode.JOB_FAILED)


def _change(job_ids: list[str], change: Callable[[str], Job], as_json: bool) -> None:
    changed = [change(job_id) for job_id in job_ids]
    if as_json:
        print_json([job.model_dump(mode="json") for job in changed])
    else:
        print_table(("job", "state"), ((job.id, job.state) for job in changed))


def _facts(job: Job) -> tuple[object, ...]:
    recipe = job.recipe
    created = job.created_at.astimezone().strftime("%m-%d %H:%M:%S")
    prompt = str(recipe.get("prompt", ""))
    return recipe.get("model"), job.count, recipe.get("seed"), created, prompt if len(prompt) <= 60 else prompt[:59] + "…"
