"""The embedded farm: redis-server, API, scheduler and workers as child processes of `imagefarm up`."""
