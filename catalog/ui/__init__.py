"""Pages for people: what this is, and the API's documentation to try out."""
