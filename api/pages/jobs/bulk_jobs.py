"""`/jobs/bulk`: cancel or retry all jobs that match a filter. The first page shows their number, which the form sends back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from flask import Response, request

from api.http.context import AppContext
from api.pages.job_cards import JobCard, job_cards
from api.pages.jobs.filter import PageFilter, read_filter
from api.pages.registry import Pages
from api.pages.rendering import page
from imagefarm.auth import Caller, Scope
from imagefarm.errors import FieldError, InvalidRequest, RequestError
from imagefarm.store import database_time, jobs
from imagefarm.store.job_access_paths import JobFilter
from scheduler.batches import bulk_actions

pages = Pages("pages_bulk_jobs")

ACTIONS = {"cancel": bulk_actions.CANCELLABLE, "retry": bulk_actions.RETRYABLE}
EXAMPLES = 6


@dataclass(frozen=True, slots=True)
class BulkActionView:
    """The jobs to change: their `number` and the newest of them. `changed` is None before the change, then the number changed."""

    action: str
    filter: PageFilter
    number: int
    jobs: tuple[JobCard, ...]
    changed: int | None
    refusal: str


@pages.get("/jobs/bulk", scope=Scope.SUBMIT)
def bulk_jobs_page(app_context: AppContext, caller: Caller) -> Response:
    """Show how many jobs match, and ask for confirmation."""
    return _asked(app_context, caller, _action(request.args.get("do", "cancel")), read_filter(request.args))


@pages.post("/jobs/bulk", scope=Scope.SUBMIT)
def bulk_jobs_form(app_context: AppContext, caller: Caller) -> Any:
    """Change the matching jobs, unless more match now than the page showed."""
    action, asked = _action(request.form.get("do", "")), read_filter(request.form)
    expected = request.form.get("expected", "")
    if not (expected.isascii() and expected.isdecimal() and len(expected) <= 9):
        raise InvalidRequest([FieldError(field="expected", detail="is not a number", remedy="send the number that was shown")])
    wanted = _wanted(app_context, caller, asked)
    try:
        if action == "cancel":
            report = bulk_actions.cancel_matching(app_context.store, wanted, expected=int(expected), by=caller.name)
        else:
            report = bulk_actions.retry_matching(
                app_context.store,
                wanted,
                app_context.settings,
                expected=int(expected),
                by=caller.name,
                quota=caller.quota,
            )
    except RequestError as error:
        return _asked(app_context, caller, action, asked, error)
    for model in sorted(report.models):
        app_context.ticket_sender.notify_lane(model)
    return page("jobs/bulk_jobs.html", BulkActionView(action, asked.first_page(), report.matched, (), report.changed, ""))


def _asked(
    app_context: AppContext, caller: Caller, action: str, asked: PageFilter, refusal: RequestError | None = None
) -> Response:
    wanted = _wanted(app_context, caller, asked)
    look = bulk_actions.cancel_matching(app_context.store, wanted, expected=None, by=caller.name) if action == "cancel" else None
    if look is None:
        look = bulk_actions.retry_matching(app_context.store, wanted, app_context.settings, expected=None, by=caller.name)
    states = tuple(state for state in ACTIONS[action] if not asked.states or state in asked.states)
    with app_context.store.read() as session:
        shown: list[Any] = []
        if states:
            some = replace(wanted, states=states)
            shown = jobs.list_jobs(session, some, before=None, limit=EXAMPLES).jobs
        cards = job_cards(session, app_context, shown)
    view = BulkActionView(action, asked.first_page(), look.matched, cards, None, refusal.detail if refusal else "")
    return page("jobs/bulk_jobs.html", view, refusal.status if refusal else 200)


def _wanted(app_context: AppContext, caller: Caller, asked: PageFilter) -> JobFilter:
    with app_context.store.read() as session:
        return asked.wanted(caller, database_time(session))


def _action(text: str) -> str:
    if text not in ACTIONS:
        raise InvalidRequest([FieldError(field="do", detail="is not an action", remedy="use cancel or retry")])
    return text
