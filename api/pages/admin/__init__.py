"""The admin pages under `/admin`."""

from __future__ import annotations

from api.pages.admin import audit, keys, overview, settings, users, webhooks, workers
from api.pages.registry import Pages
from imagefarm.messages import N_

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
    ("/admin", N_("Overview")),
    ("/admin/workers", N_("Workers")),
    ("/admin/keys", N_("Keys")),
    ("/admin/users", N_("Users")),
    ("/admin/webhooks", N_("Webhooks")),
    ("/admin/audit", N_("Audit")),
    ("/admin/settings", N_("Settings")),
)
