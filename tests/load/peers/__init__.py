"""What the service is measured beside: the same pages of the same tables by other stacks.

Each is one file, as the introductions of its framework and its server would have it. All page by
key, as the service does, and take a token before they create: they check its signature and its
expiry, and look up nobody. ``DATABASE_URL`` says where the tables are, with the driver of each,
and ``JWT_SECRET_KEY`` what tokens are signed with.
"""
