"""Search: the tokenizer, and the planner of queries with terms."""
