"""Upscalers: small networks that enlarge a finished image tile by tile, between the steps of the running set."""
