"""Finals: renders the approved images of a batch again with the same recipes in another size, as a new batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from imagefarm.auth import KeyQuota
from imagefarm.catalogue import Catalogue
from imagefarm.errors import Conflict, FieldError, InvalidRequest
from imagefarm.imaging.channels import Channel
from imagefarm.recipe import JobRequest, canonical_json
from imagefarm.settings import Settings
from imagefarm.states import OPEN, BatchState, JobState, PriorityClass
from imagefarm.store import Store
from imagefarm.store.batches import visible_batch
from imagefarm.store.models import Batch, Image, Job, Pick
from scheduler.batches.create import create_batch
from scheduler.batches.review.picks import CHUNK, Picked
from scheduler.batches.table.delivery_target import DeliveryTarget
from scheduler.batches.table.file_names import file_stem
from scheduler.batches.table.options import BatchOptions
from scheduler.batches.table.row_expansion import RecipeHasher, field_errors
from scheduler.batches.table.spool import Chunk, PlannedJob, Spool
from scheduler.batches.table.table_plan import TablePlan
from scheduler.queue.admission import learnt_costs
from scheduler.queue.limits import check_size, tenant_limits
from scheduler.queue.new_job import BatchPosition, NewJob, make_job

MAX_COMPARED = 20
"""Earlier finals batches of the same drafts that are compared with the request."""
OTHER_SHAPE = 0.02
"""A final gets a warning if its aspect ratio differs from its draft's by more than this fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalsOptions:
    """Recipe fields and batch options of finals. `steps`, `upscale` and `channels`: None keeps the value of the drafts."""

    width: int
    height: int
    steps: int | None = None
    upscale: dict[str, Any] | None = None
    name: str | None = None
    channels: list[Channel] | None = None
    deliver: DeliveryTarget | None = None

    @property
    def recipe_fields(self) -> dict[str, Any]:
        """The recipe fields that finals change."""
        wanted = {"width": self.width, "height": self.height, "steps": self.steps, "upscale": self.upscale}
        return {name: value for name, value in wanted.items() if value is not None}


def make_finals(
    store: Store,
    catalogue: Catalogue,
    settings: Settings,
    finals_options: FinalsOptions,
    *,
    batch_id: str,
    tenant_id: str,
    quota: KeyQuota | None = None,
) -> tuple[str, bool, set[str]]:
    """Create a batch that renders the approved images of a batch as finals; return its id, True, and its models.

    `quota` holds the limits of the calling key. Images that the tenant has rendered already are reused. If a batch of exactly
    these finals exists, its id, False and no models are returned.

    Raises NotFound, InvalidRequest (no image is approved, or the model cannot render the finals), Conflict (another batch is
    rendering some of them), LimitExceeded.
    """
    with store.read() as session:
        drafts = visible_batch(session, batch_id, tenant_id)
        approved = _approved(session, batch_id)
        planner = _FinalsPlanner(
            catalogue=catalogue,
            tenant_id=tenant_id,
            limits=tenant_limits(session, tenant_id, quota),
            costs=learnt_costs(session),
            finals_options=finals_options,
            priority=drafts.options.get("priority", PriorityClass.BULK),
        )
    if not approved:
        detail = f"no picture of batch {batch_id} is approved"
        raise InvalidRequest([FieldError(field="picks", detail=detail, remedy="approve pictures first")])
    options = BatchOptions(
        name=finals_options.name or f"{drafts.name[:240]} finals",
        reuse=True,
        priority=PriorityClass(planner.priority),
        deliver=finals_options.deliver,
        channels=drafts.options.get("channels", []) if finals_options.channels is None else [*finals_options.channels],
    )
    with closing(TablePlan(Spool())) as plan:
        hashes = planner.fill(plan, store, approved)
        with store.read() as session:
            if (same := _earlier(session, batch_id, hashes, options)) is not None:
                return same, False, set()
        finals_id = create_batch(store, plan, options, settings, tenant_id=tenant_id, quota=quota, drafts=batch_id)
        return finals_id, True, plan.models


@dataclass(frozen=True, slots=True, order=True)
class _Approved:
    row: int
    job_id: str
    index: int


def _approved(session: Session, batch_id: str) -> list[_Approved]:
    found = session.execute(
        select(func.coalesce(Job.row, 0), Job.id, Pick.index)
        .join(Pick, Pick.job_id == Job.id)
        .where(Pick.batch_id == batch_id, Pick.pick == Picked.APPROVED)
    )
    return sorted(_Approved(*item) for item in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _FinalsPlanner:
    """Plans final jobs from draft jobs. Recipes that differ only in prompt and seed are validated once."""

    catalogue: Catalogue
    tenant_id: str
    limits: dict[str, Any]
    costs: dict[str, float]
    finals_options: FinalsOptions
    priority: str
    _bases: dict[str, tuple[NewJob, RecipeHasher]] = field(default_factory=dict)

    def fill(self, plan: TablePlan, store: Store, approved: Sequence[_Approved]) -> set[str]:
        """Add the finals of these images to a plan; return their recipe hashes. Raises InvalidRequest."""
        hashes, last_row = set(), 0
        for drafts in _in_chunks(store, approved):
            chunk = Chunk()
            for job, image in drafts:
                base, hasher = self._base(job)
                seed = int(image.seed)
                planned = PlannedJob(
                    job.row or 0,
                    -1,
                    job.prompt,
                    seed,
                    hasher.recipe_hash(job.prompt, seed),
                    job.labels,
                    job.custom_id,
                    None if job.name is None else file_stem(job.name, image.index, job.count),
                    from_image=image.id,
                )
                chunk.add_job(planned, base)
                if planned.row > last_row:
                    last_row = planned.row
                    sku = {"sku": job.labels["sku"]} if "sku" in job.labels else {}
                    cells = {
                        **sku,
                        "prompt": job.prompt,
                        "seed": image.seed,
                        "model": job.model,
                        **self.finals_options.recipe_fields,
                    }
                    chunk.add_row(last_row, cells, None)
                    plan.columns.update(dict.fromkeys(cells))
                    plan.rows += 1
                hashes.add(planned.recipe_hash)
                plan.accepted += 1
                plan.images += 1
                plan.gpu_s += base.cost_s
                plan.models.add(job.model)
            plan.spool.write(chunk)
        return hashes

    def _base(self, job: Job) -> tuple[NewJob, RecipeHasher]:
        key = canonical_json(job.recipe | {"prompt": "x", "seed": "0"})
        if key not in self._bases:
            self._bases[key] = self._make_base(job)
        return self._bases[key]

    def _make_base(self, job: Job) -> tuple[NewJob, RecipeHasher]:
        fields = {name: value for name, value in job.recipe.items() if name in JobRequest.model_fields and value is not None}
        fields |= {"prompt": "x", "seed": 0, "priority": self.priority, **self.finals_options.recipe_fields}
        if (subject := fields.get("subject")) and (scale := subject["place"]["scale"]) is not None:
            # the subject grows with the image
            larger = min(self.finals_options.width / job.recipe["width"], self.finals_options.height / job.recipe["height"])
            fields["subject"] = subject | {"place": subject["place"] | {"scale": scale * larger}}
        try:
            final = make_job(
                self.catalogue,
                JobRequest.model_validate(fields),
                self.tenant_id,
                costs=self.costs,
                position=BatchPosition(held=True),
            )
            check_size([final], self.limits)
        except ValidationError as error:
            raise InvalidRequest(field_errors(error)) from None
        except InvalidRequest as error:
            raise InvalidRequest([replace(wrong, row=job.row) for wrong in error.errors]) from None
        before, after = job.recipe["width"] / job.recipe["height"], self.finals_options.width / self.finals_options.height
        if abs(after / before - 1) > OTHER_SHAPE:
            shapes = f"{job.recipe['width']}x{job.recipe['height']} and {self.finals_options.width}x{self.finals_options.height}"
            warning = f"its draft has another shape ({shapes}), so it shows more or less than its draft"
            final = final._replace(warnings=[*final.warnings, warning])
        return final, RecipeHasher(final.recipe)


def _in_chunks(store: Store, approved: Sequence[_Approved]) -> Iterator[list[tuple[Job, Image]]]:
    """Yield the jobs and images of these approvals in their order, in chunks."""
    for start in range(0, len(approved), CHUNK):
        some = approved[start : start + CHUNK]
        with store.read() as session:
            found = session.execute(
                select(Job, Image)
                .join(Image, Image.job_id == func.coalesce(Job.reuses, Job.id))
                .where(Job.id.in_({item.job_id for item in some}))
            )
            pictures = {(job.id, image.index): (job, image) for job, image in found}
        yield [pictures[item.job_id, item.index] for item in some if (item.job_id, item.index) in pictures]


def _earlier(session: Session, drafts_id: str, hashes: set[str], options: BatchOptions) -> str | None:
    """The id of an earlier batch of exactly these finals. Raises Conflict if another batch is rendering some of them."""
    batches = session.execute(
        select(Batch.id, Batch.options)
        .where(Batch.drafts == drafts_id, Batch.state.not_in([BatchState.CANCELLED, BatchState.VALIDATING]))
        .order_by(Batch.id.desc())
        .limit(MAX_COMPARED)
    ).all()
    wanted = options.model_dump(mode="json")["channels"]
    for batch_id, kept in batches:
        found = session.execute(select(Job.recipe_hash, Job.state).where(Job.batch_id == batch_id)).all()
        good = {recipe_hash for recipe_hash, state in found if state in OPEN or state == JobState.SUCCEEDED}
        if good == hashes and kept.get("channels", []) == wanted:
            return str(batch_id)
        under_way = {recipe_hash for recipe_hash, state in found if state in OPEN} & hashes
        if under_way:
            detail = f"batch {batch_id} is rendering {len(under_way)} of these {len(hashes)} finals now"
            raise Conflict(f"{detail}; wait until it is done, or cancel it")
    return None
