"""From decoded pixels to a committed row: compositing, scores, channels, audit."""
