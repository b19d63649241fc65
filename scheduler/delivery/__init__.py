"""What leaves the farm: webhooks, buckets."""
