"""Events and progress from Redis, fanned out to the streams of one process."""
