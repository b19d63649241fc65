"""The settings in force, and where each came from. Read only; secrets are not shown."""

from __future__ import annotations

from api.http.context import AppContext
from api.http.routes import Routes
from api.http.schemas import ResponseModel
from api.v1.schemas.settings import SettingResponse, shown_settings
from imagefarm.auth import Caller, Scope

routes = Routes(tag="queue")


class SettingList(ResponseModel):
    """Every setting, in the order of the documentation."""

    items: list[SettingResponse]
    next_cursor: None = None


@routes.get("/api/v1/settings", scope=Scope.ADMIN, response=SettingList)
def list_settings(app_context: AppContext, caller: Caller) -> SettingList:
    """See the limits and settings in force, and where each came from.

    Secrets are masked. Settings are changed where they came from, not here.
    """
    return SettingList(items=shown_settings(app_context.settings))
