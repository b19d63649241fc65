"""The step engine: a running set of images that share forward passes. Images join and leave at step boundaries."""
