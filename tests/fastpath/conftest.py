"""Fixtures of the tests that run the service as a process."""

from tests.server.conftest import shared_service

__all__ = ["shared_service"]
