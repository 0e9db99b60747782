"""HTML pages: the home page, and interactive documentation of the API."""
