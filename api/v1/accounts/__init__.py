"""Tenants, keys, users and their limits over REST."""
