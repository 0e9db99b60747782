"""``catalog serve``: a supervisor that owns the listening sockets, and workers that serve them."""
