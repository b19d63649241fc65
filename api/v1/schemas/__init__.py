"""Schemas used by more than one resource or page: bodies, responses, and the conversion of database rows to responses."""
