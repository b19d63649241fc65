"""The filter of the list of jobs. Its URL is its only state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from werkzeug.datastructures import MultiDict

from imagefarm.auth import Caller
from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.ids import is_id
from imagefarm.states import JobState
from imagefarm.store.job_access_paths import JobFilter
from imagefarm.text import check_text

PERIODS: Mapping[str, float] = {"1h": 3600.0, "24h": 86400.0, "7d": 7 * 86400.0}
MAX_CHARS = {"model": 64, "batch": 40, "tenant": 40, "worker": 128, "text": 200, "custom_id": 128, "label": 330}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFilter:
    """The filter in the page's URL. `before` begins an older page; `upto` is its first job, so that newer jobs shift no rows."""

    states: tuple[JobState, ...] = ()
    model: str = ""
    batch: str = ""
    tenant: str = ""
    worker: str = ""
    text: str = ""
    custom_id: str = ""
    label: str = ""
    since: str = ""
    before: str = ""
    upto: str = ""

    @property
    def query(self) -> str:
        """The query string of this filter with its question mark; empty without a filter."""
        pairs = [("state", str(state)) for state in self.states]
        for name in ("model", "batch", "tenant", "worker", "text", "custom_id", "label", "since", "before", "upto"):
            if value := getattr(self, name):
                pairs.append((name, value))
        return f"?{urlencode(pairs)}" if pairs else ""

    @property
    def is_narrow(self) -> bool:
        """True if it leaves anything out."""
        return self.first_page() != PageFilter()

    def first_page(self) -> PageFilter:
        """This filter, from its newest job on."""
        return replace(self, before="", upto="")

    def toggled(self, state: JobState) -> PageFilter:
        """This filter with the state added or removed, from the newest job on."""
        states = tuple(one for one in JobState if (one in self.states) != (one == state))
        return replace(self.first_page(), states=states)

    def with_(self, **changed: str) -> PageFilter:
        """The same from its newest job on, with some parts changed."""
        return replace(self.first_page(), **changed)  # type: ignore[arg-type]

    def wanted(self, caller: Caller, now: float) -> JobFilter:
        """Convert to the store's filter, limited to the jobs that the caller may see. `now` is in seconds since 1970."""
        labels: tuple[tuple[str, str], ...] = ()
        if self.label:
            name, _, value = self.label.partition(":")
            labels = ((name, value),)
        return JobFilter(
            tenant_id=caller.tenant_filter or self.tenant or None,
            states=self.states,
            model=self.model or None,
            batch_id=self.batch or None,
            custom_id=self.custom_id or None,
            worker=self.worker or None,
            labels=labels,
            text=self.text or None,
            created_after=now - PERIODS[self.since] if self.since else None,
        )


def read_filter(given: MultiDict[str, str]) -> PageFilter:
    """Read the filter from query or form fields; other fields are ignored. Raises InvalidRequest, which names the field."""
    values: dict[str, str] = {}
    errors = []
    for name, max_chars in MAX_CHARS.items():
        value = given.get(name, "").strip()
        try:
            check_text(value)
        except ValueError as error:
            errors.append(FieldError(field=name, detail=str(error)))
        if len(value) > max_chars:
            errors.append(FieldError(field=name, detail=f"is longer than {max_chars} characters", remedy="shorten it"))
        values[name] = value
    if values["label"] and ":" not in values["label"]:
        errors.append(FieldError(field="label", detail="is not a label", remedy="write it name:value"))
    for name in ("before", "upto"):
        values[name] = given.get(name, "")
        if values[name] and not is_id(values[name], "job"):
            errors.append(FieldError(field=name, detail="is not the id of a job", remedy="leave it out"))
    values["since"] = given.get("since", "")
    if values["since"] and values["since"] not in PERIODS:
        errors.append(FieldError(field="since", detail="is unknown", remedy="use one of " + ", ".join(PERIODS)))
    states = [state for state in given.getlist("state") if state]
    unknown = [state for state in states if state not in set(JobState)]
    if unknown:
        errors.append(FieldError(field="state", detail="is not a state of a job", remedy="use one of " + ", ".join(JobState)))
    if errors:
        raise InvalidRequest(errors)
    return PageFilter(states=tuple(state for state in JobState if state in states), **values)
