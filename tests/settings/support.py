"""Loading of settings from an environment."""

from typing import Protocol

import pytest

from catalog.errors import SettingsInvalid
from catalog.settings import Settings

STRONG = "Vd8Kq2ZrT5wXy7NbJm3LcPf9GhQs4AeU"
MYSQL = "mysql://catalog:pAssw0rd@db.example:3306/catalog"


class Load(Protocol):
    """Loader of settings from an environment with only the given variables."""

    def __call__(self, **environment: str) -> Settings: ...


def faults_of(load: Load, **environment: str) -> tuple[str, ...]:
    with pytest.raises(SettingsInvalid) as refused:
        load(**environment)
    return refused.value.faults


def fault_of(load: Load, **environment: str) -> str:
    (fault,) = faults_of(load, **environment)
    return fault
