"""Change log with positions and tokens, and the change feed."""
