"""Hooks of ``tests.faults.privacy``, and a session of its own for each request."""

from tests.faults import privacy
from tests.server import fresh_tokens

__all__ = ["fresh_tokens", "privacy"]
