"""HTML pages: the console with its session, and interactive documentation of the API."""
