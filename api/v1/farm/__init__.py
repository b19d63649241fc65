"""The state of the farm over REST: queue, workers, models, settings."""
