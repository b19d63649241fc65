"""The admin pages `/admin`: a page for each thing an operator looks after."""

from __future__ import annotations

from api.pages.admin import audit, keys, overview, settings, users, webhooks, workers
from api.pages.registry import Pages

AREAS: tuple[Pages, ...] = (
    overview.pages,
    workers.pages,
    keys.pages,
    users.pages,
    webhooks.pages,
    audit.pages,
    settings.pages,
)
TABS = (
    ("/admin", "Overview"),
    ("/admin/workers", "Workers"),
    ("/admin/keys", "Keys"),
    ("/admin/users", "Users"),
    ("/admin/webhooks", "Webhooks"),
    ("/admin/audit", "Audit"),
    ("/admin/settings", "Settings"),
)
