"""Exports of a batch: manifest, archive, delivery."""
