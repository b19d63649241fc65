"""From a table to planned jobs."""
