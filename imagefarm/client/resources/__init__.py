"""The client's operations, one file a resource."""
