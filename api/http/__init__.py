"""The mechanics of HTTP: routes, OpenAPI, errors, authentication, limits."""
