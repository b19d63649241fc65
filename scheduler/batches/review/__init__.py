"""Decisions on a batch's images: picks, finals, the quality gate."""
