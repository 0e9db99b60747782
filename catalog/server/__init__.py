"""``catalog serve``: a supervisor that owns the sockets, and workers that serve on them."""
