"""Product mode: a photo's subject stays pixel for pixel, its surroundings are made."""
