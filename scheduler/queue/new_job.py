"""A job before it is stored: a typed value, and how a request becomes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from imagefarm.catalogue import Catalogue
from imagefarm.ids import new_id
from imagefarm.recipe import JobRequest, Recipe, recipe_hash
from imagefarm.states import JobState


class NewJob(NamedTuple):
    """A job to be stored: the columns of the table `job` that its submission decides.

    It is a tuple, because a bulk submission makes hundreds of thousands; copying it with changes and turning it into a row take
    about a microsecond each.
    """

    id: str
    tenant_id: str
    priority_class: str
    model: str
    compat_key: str
    state: str
    recipe: dict[str, Any]
    recipe_hash: str
    prompt: str
    count: int  # type: ignore[assignment]  # hides the method of tuples, which this one has no use for
    labels: dict[str, str]
    cost_s: float
    """Predicted GPU-seconds."""
    custom_id: str | None = None
    rank: int = 0
    batch_id: str | None = None
    row: int | None = None
    name: str | None = None
    reuses: str | None = None
    rerolls: int = 0
    from_image: str | None = None
    warnings: list[str] = []  # noqa: RUF012 - a default of a tuple's field, which nothing changes in place
    preview: bool = False
    attempt: int = 0
    crashes: int = 0
    not_before: float = 0.0
    expires_in: float | None = None
    """Seconds after its submission at which an unstarted job expires."""
    created_at: float = 0.0
    """The database's time of its submission; 0 until it is submitted."""
    quota_id: str | None = None
    """The id under which the submitting key's limits are counted; None: the key has none."""

    def submitted(self, at: float, quota_id: str | None) -> NewJob:
        """This job as submitted at that time, by a key whose limits are counted under `quota_id`."""
        return self._replace(created_at=at, quota_id=quota_id)

    def columns(self) -> dict[str, Any]:
        """The row of the table `job`."""
        return self.columns_at(self.created_at, self.quota_id)

    def columns_at(self, at: float, quota_id: str | None) -> dict[str, Any]:
        """As `submitted(at, quota_id).columns()`, without the copy: a bulk submission makes one for each of its jobs."""
        row = self._asdict()
        expires_in = row.pop("expires_in")
        row["created_at"], row["quota_id"] = at, quota_id
        row["expires_at"] = None if expires_in is None else at + expires_in
        return row


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPosition:
    """A job's position outside its request: its batch, row, file name, and whether it is held."""

    batch_id: str | None = None
    row: int | None = None
    name: str | None = None
    held: bool = False
    rank: int = 0


def make_job(
    catalogue: Catalogue,
    request: JobRequest,
    tenant_id: str,
    *,
    costs: Mapping[str, float],
    position: BatchPosition | None = None,
) -> NewJob:
    """Make a job from a request. `costs` holds learned GPU-seconds of one default image, by model.

    Touches no database. Raises InvalidRequest or UnknownModel.
    """
    recipe, warnings = catalogue.resolve(request)
    return job_of_recipe(catalogue, request, recipe, warnings, tenant_id, cost_s=costs.get(recipe.model), position=position)


def job_of_recipe(
    catalogue: Catalogue,
    request: JobRequest,
    recipe: Recipe,
    warnings: list[str],
    tenant_id: str,
    *,
    cost_s: float | None,
    position: BatchPosition | None = None,
) -> NewJob:
    """Make a job whose recipe is known. `cost_s` is the learned GPU-seconds of one default image of its model."""
    position = position or BatchPosition()
    entry = catalogue.get(recipe.model)
    stored = recipe.model_dump(mode="json")
    return NewJob(
        id=new_id("job"),
        tenant_id=tenant_id,
        priority_class=str(request.priority),
        rank=position.rank,
        model=recipe.model,
        compat_key=entry.compat_key(recipe),
        state=str(JobState.HELD if position.held else JobState.QUEUED),
        recipe=stored,
        recipe_hash=recipe_hash(stored),
        prompt=recipe.prompt,
        count=request.count,
        labels=dict(request.labels),
        custom_id=request.custom_id,
        batch_id=position.batch_id,
        row=position.row,
        name=position.name,
        warnings=warnings,
        cost_s=entry.predicted_cost_s(recipe, request.count, cost_s),
        preview=request.preview,
        expires_in=request.expires_in,
    )
