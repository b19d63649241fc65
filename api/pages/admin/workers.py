"""`/admin/workers`: each worker with its device, its memory and what it renders, and the orders it takes."""

from __future__ import annotations

from typing import Any, Literal

from flask import Blueprint, Response, redirect, request

from api.auth import authenticate, require
from api.context import current_farm
from api.farm_state import redis_beats
from api.pages.farm_view import farm_view
from api.pages.rendering import page
from imagefarm.auth import Scope
from imagefarm.errors import NotFound
from imagefarm.states import WorkerState
from scheduler import workers

pages = Blueprint("pages_admin_workers", __name__)

MODEL_ORDERS: tuple[Literal["warm", "unload"], ...] = ("warm", "unload")
ORDERS = {"drain": WorkerState.DRAINING, "resume": WorkerState.READY, "quarantine": WorkerState.QUARANTINED}


@pages.get("/admin/workers")
def workers_page() -> Response:
    """Show the workers, those that stopped within the hour too."""
    farm = current_farm()
    caller = authenticate(farm)
    require(caller, Scope.ADMIN)
    beats = redis_beats()
    with farm.store.read() as session:
        view = farm_view(session, farm, caller, redis_beats=beats, closely=True)
    return page("admin_workers.html", view)


@pages.post("/admin/workers/<worker_id>/<order>")
def worker_form(worker_id: str, order: str) -> Any:
    """Drain, resume or quarantine a worker, or have it load or unload a model, and go back to the list."""
    farm = current_farm()
    caller = authenticate(farm)
    require(caller, Scope.ADMIN)
    for one in MODEL_ORDERS:
        if one == order:
            model = farm.catalogue.get(request.form.get("model", "")).name
            workers.order(farm.store, one, model, worker=worker_id, by=caller.name)
            return redirect("/admin/workers", 303)
    if order not in ORDERS:
        raise NotFound(f"a worker takes no order {order[:40]!r}; it takes {', '.join((*ORDERS, *MODEL_ORDERS))}")
    workers.want(farm.store, worker_id, ORDERS[order], by=caller.name)
    return redirect("/admin/workers", 303)
