"""Pages of products: page cache, page reader, and encoded rows."""
