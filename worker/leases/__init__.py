"""Jobs under this worker's lease: renewal, cancellation."""
