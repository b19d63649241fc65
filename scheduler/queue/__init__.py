"""The queue: submit, claim, lease, finish, retry, cancel."""
