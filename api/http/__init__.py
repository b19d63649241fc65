"""The HTTP layer: routes, OpenAPI, errors, authentication, limits."""
