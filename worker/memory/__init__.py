"""Memory planning: weight sizes, tiers, learned limits."""
