"""Peers for comparison: the same pages of the same tables, by other stacks.

Each is one file, written as the introductions of its framework and its server suggest. All use
keyset pagination, as the service does, and require a token for creates: they check its signature
and its expiry, and query no account. ``DATABASE_URL`` names the database, with the driver of each
peer, and ``JWT_SECRET_KEY`` is the key that signs tokens.
"""
