"""What fits where: reading weights' sizes and planning memory."""
