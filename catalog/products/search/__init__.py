"""Full-text search: tokenizer and query planner."""
