"""Schemas that more than one resource, or a page, uses: bodies, responses, and how rows of the store become responses."""
