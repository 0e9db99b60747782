"""Pages of products: page cache, page reader, and row encoding."""
