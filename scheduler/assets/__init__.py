"""Images that users upload or reference by URL."""
