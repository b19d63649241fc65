"""Images that users send in or name by URL."""
