"""The worker's processes: identity, liveness, deadlines, drain, memory limit."""
