"""Accounts, sign-in and tokens: ``/api/auth``."""
