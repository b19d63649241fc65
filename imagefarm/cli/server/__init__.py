"""The commands that run a farm, or read its database: the part of the command line that comes with imagefarm-server."""

from imagefarm.cli.server import audit, demo, health, keys, model_files, plan, services, settings, tenants, up, users

__all__ = ["audit", "demo", "health", "keys", "model_files", "plan", "services", "settings", "tenants", "up", "users"]
