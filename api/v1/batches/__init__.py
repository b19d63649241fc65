"""Batches over REST."""
