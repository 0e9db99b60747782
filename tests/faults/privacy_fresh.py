"""Hooks of ``tests.faults.privacy`` with a fresh session for each request."""

from tests.faults import privacy
from tests.server import fresh_tokens

__all__ = ["fresh_tokens", "privacy"]
