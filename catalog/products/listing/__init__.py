"""Pages of products: the cache of rendered pages, and rows to JSON."""
