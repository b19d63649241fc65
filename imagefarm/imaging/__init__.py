"""Pictures as files: encoding, and what a file says about how it was made."""
