"""The Flask API of the farm. Knows no torch."""
