"""The settings in force and the origin of each. Read only; secrets are masked."""

from __future__ import annotations

from api.http.context import AppContext
from api.http.routes import Routes
from api.http.schemas import ResponseModel
from api.v1.schemas.settings import SettingResponse, shown_settings
from imagefarm.auth import Caller, Scope

routes = Routes(tag="queue")


class SettingList(ResponseModel):
    """All settings, in the order of the documentation."""

    items: list[SettingResponse]
    next_cursor: None = None


@routes.get("/api/v1/settings", scope=Scope.FARM, response=SettingList)
def list_settings(app_context: AppContext, caller: Caller) -> SettingList:
    """Get the limits and settings in force, with the origin of each.

    Secrets are masked. Change a setting at its origin; this API cannot change it.
    """
    return SettingList(items=shown_settings(app_context.settings))
