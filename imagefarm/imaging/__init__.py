"""Image files: encoding, and the metadata about how an image was made."""
