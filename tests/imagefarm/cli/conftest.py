"""The API in this process, as the client's tests have it."""

from tests.imagefarm.client.conftest import api, client, keyed, module_database, redis_url

__all__ = ["api", "client", "keyed", "module_database", "redis_url"]
