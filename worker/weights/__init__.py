"""Weight files: headers, digests, where they lie."""
