"""Passwords: the policy for new ones, their hashes, and the count of wrong ones."""
