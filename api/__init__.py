"""The farm's Flask API. It never imports torch."""
