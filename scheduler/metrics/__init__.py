"""Figures over time: rollups, throughput."""
