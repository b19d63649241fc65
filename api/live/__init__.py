"""Live events and progress from Redis, distributed to the streams of one process."""
