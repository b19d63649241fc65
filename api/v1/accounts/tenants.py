"""Tenants, for admins: their limits and use, and changing the limits."""

from __future__ import annotations

from api.http.context import AppContext
from api.http.routes import Routes
from api.http.schemas import ResponseModel
from api.v1.schemas.tenants import TenantChange, TenantResponse, tenant_response, tenant_responses
from imagefarm.auth import Caller, Scope
from imagefarm.tenants import limit_tenant, today

routes = Routes(tag="queue")


class TenantList(ResponseModel):
    """Tenants, ordered by what they asked for today."""

    items: list[TenantResponse]
    next_cursor: None = None


@routes.get("/api/v1/tenants", scope=Scope.FARM, response=TenantList)
def list_tenants(app_context: AppContext, caller: Caller) -> TenantList:
    """List the tenants with their queues, limits, use today and shares."""
    with app_context.store.read() as session:
        return TenantList(items=tenant_responses(session, app_context.settings))


@routes.patch("/api/v1/tenants/{tenant}", scope=Scope.FARM, response=TenantResponse)
def change_tenant(app_context: AppContext, caller: Caller, tenant: str, body: TenantChange) -> TenantResponse:
    """Set the limits of a tenant, by name or id.

    They apply from the next submit and the next claim; waiting and running jobs stay. A limit above the farm's own has no effect.
    """
    changed = limit_tenant(app_context.store, tenant, body.limits.model_dump(exclude_unset=True), by=caller.name)
    with app_context.store.read() as session:
        return tenant_response(changed, today(session), app_context.settings)
