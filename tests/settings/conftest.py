"""Fixtures of settings."""

import pytest

from catalog.settings import Settings, load_settings
from tests.settings.support import Load


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    def load(**environment: str) -> Settings:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return load_settings()

    return load
