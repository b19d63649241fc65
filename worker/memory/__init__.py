"""What fits in memory: planning by weight sizes, tiers, learned limits."""
