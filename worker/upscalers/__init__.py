"""Upscalers: small networks that enlarge a finished picture, tile by tile, between the steps of the running set."""
