"""Reads a table and plans its jobs."""
