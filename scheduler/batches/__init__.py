"""Batches: a table, a prompt template and variants become many jobs, and the table's results come back by row."""
