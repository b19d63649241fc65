"""`/admin/workers`: each worker with its device, memory and current jobs, and the operator's commands."""

from __future__ import annotations

from typing import Any, Literal

from flask import Response, redirect, request

from api.http.context import AppContext
from api.pages.registry import Pages
from api.pages.rendering import page
from imagefarm.auth import Caller, Scope
from imagefarm.errors import NotFound
from imagefarm.states import WorkerState
from scheduler.metrics.read_farm import read_farm
from scheduler.queue import workers

pages = Pages("pages_admin_workers")

MODEL_COMMANDS: tuple[Literal["warm", "unload"], ...] = ("warm", "unload")
STATE_COMMANDS = {"drain": WorkerState.DRAINING, "resume": WorkerState.READY, "quarantine": WorkerState.QUARANTINED}


@pages.get("/admin/workers", scope=Scope.FARM)
def workers_page(app_context: AppContext, caller: Caller) -> Response:
    """Show the workers, with those that stopped within the last hour."""
    redis_up = app_context.redis_health.is_up()
    with app_context.store.read() as session:
        view = read_farm(
            session,
            app_context.catalogue,
            caller,
            redis_is_up=redis_up,
            read_steps=app_context.progress.read,
            detailed=True,
        )
    return page("admin/workers.html", view)


@pages.post("/admin/workers/<worker_id>/<command>", scope=Scope.FARM)
def worker_form(app_context: AppContext, caller: Caller, worker_id: str, command: str) -> Any:
    """Send a worker a command (drain, resume, quarantine, warm or unload a model), and return to the list."""
    for one in MODEL_COMMANDS:
        if one == command:
            model = app_context.catalogue.get(request.form.get("model", "")).name
            workers.send_command(app_context.store, one, model, worker=worker_id, by=caller.name)
            return redirect("/admin/workers", 303)
    if command not in STATE_COMMANDS:
        raise NotFound(f"unknown worker command {command[:40]!r}; use one of {', '.join((*STATE_COMMANDS, *MODEL_COMMANDS))}")
    workers.set_desired_state(app_context.store, worker_id, STATE_COMMANDS[command], by=caller.name)
    return redirect("/admin/workers", 303)
