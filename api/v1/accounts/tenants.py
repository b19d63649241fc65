"""Tenants for admins: what each may ask for and what it has of it, and its limits set."""

from __future__ import annotations

from api.http.context import AppContext
from api.http.routes import Routes
from api.http.schemas import ResponseModel
from api.v1.schemas.tenants import TenantChange, TenantResponse, tenant_response, tenant_responses
from imagefarm.auth import Caller, Scope
from imagefarm.tenants import limit_tenant, today

routes = Routes(tag="queue")


class TenantList(ResponseModel):
    """The tenants who have asked for most today first."""

    items: list[TenantResponse]
    next_cursor: None = None


@routes.get("/api/v1/tenants", scope=Scope.ADMIN, response=TenantList)
def list_tenants(app_context: AppContext, caller: Caller) -> TenantList:
    """List the tenants with their queues, their limits, their use of today and their share."""
    with app_context.store.read() as session:
        return TenantList(items=tenant_responses(session, app_context.settings))


@routes.patch("/api/v1/tenants/{tenant}", scope=Scope.ADMIN, response=TenantResponse)
def change_tenant(app_context: AppContext, caller: Caller, tenant: str, body: TenantChange) -> TenantResponse:
    """Set the limits of a tenant, by name or id.

    They hold from the next submit and the next claim; what waits or runs already stays. A limit wider than the farm's own has no
    effect.
    """
    changed = limit_tenant(app_context.store, tenant, body.limits.model_dump(exclude_unset=True), by=caller.name)
    with app_context.store.read() as session:
        return tenant_response(changed, today(session), app_context.settings)
