"""Images and assets over REST."""
