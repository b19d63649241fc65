"""Commands that run on the farm's own machine."""
