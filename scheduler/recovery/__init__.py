"""What puts the farm right again: sweep, breaker, clean-up."""
