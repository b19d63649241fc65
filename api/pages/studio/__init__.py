"""The studio pages."""
