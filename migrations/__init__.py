"""Alembic: how the database got its shape."""
