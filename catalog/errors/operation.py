"""Errors for the operator, never sent over HTTP."""

from collections.abc import Sequence

from catalog.errors.base import CatalogError


class OperatorError(CatalogError):
    """Base of errors for the operator; the command line prints them and exits non-zero."""

    slug = "operator-error"
    status = 500
    title = "The service cannot run"


class CannotCheck(OperatorError):
    """A deployment cannot be checked for conformance."""

    title = "The deployment cannot be checked"


class SettingsInvalid(OperatorError):
    """Settings are missing or invalid.

    Attributes:
        faults: one line each, naming the variable and never its value when that is a secret.
    """

    title = "The settings are not valid"

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class StartFailed(OperatorError):
    """The service cannot start, for instance because its database rejects it or its port is taken.

    A database whose schema is newer than this release is another reason.
    """

    title = "The service cannot start"
