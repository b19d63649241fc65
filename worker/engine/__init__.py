"""The step engine: a running set of images that share forward passes, joined and left at every step boundary."""
