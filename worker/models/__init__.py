"""Pipelines on the device: loading, residency, LoRAs, embeddings, acceleration."""
