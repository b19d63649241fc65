"""Plans a table: its jobs, their cost, and the errors of its rows. Writes nothing to the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from imagefarm.catalogue import Catalogue
from imagefarm.errors import FieldError
from imagefarm.recipe import JobRequest, Recipe
from scheduler.assets.named_images import NamedImages
from scheduler.batches.table.columns import MAX_COLUMNS, near_misses
from scheduler.batches.table.incremental import Change, PreviousBatch
from scheduler.batches.table.options import BatchOptions
from scheduler.batches.table.row_expansion import RowExpander, RowExpansionError
from scheduler.batches.table.rows import Row, Table
from scheduler.batches.table.spool import Chunk, Spool
from scheduler.batches.table.table_text import refuse
from scheduler.queue.limits import check_size
from scheduler.queue.new_job import BatchPosition, NewJob, make_job

MAX_ERRORS = 100
"""Errors that a response lists."""
MAX_ROW_ERRORS = 10
MAX_SKU_CHARS = 100
SAMPLE_PROMPTS = 3
REPORTED_ROWS = 1000
"""Rows that a dry run reports one by one."""


@dataclass(slots=True)
class RowPlan:
    """The plan of one row, for the report of a dry run."""

    row: int
    sku: str
    jobs: int = 0
    pictures: int = 0
    gpu_s: float = 0.0
    prompt: str = ""
    """The prompt of its first job."""
    changes: set[Change] = field(default_factory=set)
    errors: list[FieldError] = field(default_factory=list)


@dataclass
class TablePlan:
    """The plan of a table. `spool` holds its jobs; close the plan after use."""

    spool: Spool
    rows: int = 0
    accepted: int = 0
    rejected: int = 0
    """Jobs of rejected rows; accepted + rejected = rows x variants."""
    images: int = 0
    gpu_s: float = 0.0
    errors: list[FieldError] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    reports: list[RowPlan] = field(default_factory=list)
    """The plans of the first rows."""
    models: set[str] = field(default_factory=set)
    columns: dict[str, None] = field(default_factory=dict)
    """The table's columns in the order in which they occur; after MAX_COLUMNS no row adds any."""
    canary_row: int = 0
    """The last row of the canary; 0: no canary."""
    canary_jobs: int = 0
    warnings: list[FieldError] = field(default_factory=list)
    """Likely mistakes; they reject nothing."""
    removed: int = 0
    """Jobs of the updated batch that this table does not contain."""

    def close(self) -> None:
        self.spool.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitter:
    """The submitting tenant: its limits, the learned costs of its jobs, and the images that it refers to."""

    catalogue: Catalogue
    tenant_id: str
    limits: dict[str, Any]
    costs: dict[str, float]
    named_images: NamedImages

    def make_job(self, fields: dict[str, Any]) -> NewJob:
        """Make the held job of a request's fields. Raises InvalidRequest, ValidationError."""
        fields = self.named_images.resolve(fields)
        request = JobRequest.model_validate(fields)
        job = make_job(self.catalogue, request, self.tenant_id, costs=self.costs, position=BatchPosition(held=True))
        check_size([job], self.limits)
        self.named_images.check(Recipe.model_validate(job.recipe))
        return job


def plan_table(
    table: Table,
    options: BatchOptions,
    submitter: Submitter,
    *,
    max_jobs: int,
    keep: bool = True,
    previous: PreviousBatch | None = None,
) -> TablePlan:
    """Read all rows and plan their jobs. `keep` False: count the jobs without storing them. `previous` is the batch to update.

    Raises InvalidRequest for an error of the whole table; errors of single rows are in the plan.
    """
    expander = RowExpander(options, table.columns, submitter.make_job)
    if (model := options.defaults.get("model")) is not None:
        submitter.catalogue.get(str(model))
    plan = TablePlan(Spool(), columns=dict.fromkeys(table.columns or ()))
    try:
        chunk = Chunk()
        canary_rows = 0
        for row in submitter.named_images.prefetch(table.rows):
            if _add(plan, chunk, expander, row, previous) and canary_rows < options.canary:
                canary_rows, plan.canary_jobs, plan.canary_row = canary_rows + 1, plan.accepted, row.number
            if plan.accepted > max_jobs:
                most = f"the table makes more than {max_jobs} jobs (max_queued_per_tenant = {max_jobs})"
                refuse("rows", most, "send it in several batches", row.number)
            if chunk.is_full:
                if keep:
                    plan.spool.write(chunk)
                chunk = Chunk()
        if keep and chunk.rows:
            plan.spool.write(chunk)
        if not plan.rows:
            refuse("rows", "the table has no rows", "send at least one row under the header")
        plan.warnings += [*table.warnings, *near_misses(plan.columns), *expander.hints]
        if previous is not None:
            plan.removed = previous.removed
        if plan.accepted == plan.canary_jobs:
            plan.canary_row = 0  # there are no jobs after the canary to hold
    except BaseException:
        plan.close()
        raise
    return plan


def _add(plan: TablePlan, chunk: Chunk, expander: RowExpander, row: Row, previous: PreviousBatch | None) -> bool:
    """Plan one row: all of its variants, or none if it has errors. Returns whether it was accepted."""
    plan.rows += 1
    if len(plan.columns) < MAX_COLUMNS:
        plan.columns.update(dict.fromkeys(row.cells))
    jobs = []
    if not row.errors:
        try:
            jobs = expander.jobs(row)
        except RowExpansionError as error:
            row.errors += error.errors
    chunk.add_row(row.number, row.cells, [[error.field, error.detail] for error in row.errors] or None)
    report = RowPlan(row.number, str(row.cells.get("sku", ""))[:MAX_SKU_CHARS], errors=row.errors[:MAX_ROW_ERRORS])
    if len(plan.reports) < REPORTED_ROWS:
        plan.reports.append(report)
    if row.errors:
        plan.rejected += len(expander.variants)
        plan.errors += row.errors[: max(0, MAX_ERRORS - len(plan.errors))]
        return False
    plan.accepted += len(jobs)
    for job, base in jobs:
        if previous is not None:
            job.change = previous.change(job.name, job.recipe_hash, base.count)
        chunk.add_job(job, base)
        plan.images += base.count
        plan.gpu_s += base.cost_s
        report.jobs += 1
        report.pictures += base.count
        report.gpu_s += base.cost_s
        report.prompt = report.prompt or job.prompt
        plan.models.add(base.model)
        if len(plan.prompts) < SAMPLE_PROMPTS:
            plan.prompts.append(job.prompt)
    return True
