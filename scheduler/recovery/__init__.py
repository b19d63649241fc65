"""Recovery: the sweep, the breaker, cleanup."""
