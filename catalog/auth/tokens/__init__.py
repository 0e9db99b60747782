"""Tokens and their sessions: JWT, the keys that sign them, refresh and revocation."""
