"""Changes: positions and tokens, the log, and the feed that follows it."""
