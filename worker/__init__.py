"""The rendering workers of the farm. Know no Flask."""
