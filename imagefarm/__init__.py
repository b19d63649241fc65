"""imagefarm: the shared core of the render farm."""

__version__ = "0.1.0"
