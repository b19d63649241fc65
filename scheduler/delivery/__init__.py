"""Deliveries to other systems: webhooks, buckets."""
