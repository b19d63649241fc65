"""The queue, recovery, batches, assets and deliveries. Imports neither Flask nor torch."""
