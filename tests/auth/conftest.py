"""The same fixtures as for the wire: a service without a database, and documented answers."""

from tests.http.conftest import app, bare_app, holder, stranger

__all__ = ["app", "bare_app", "holder", "stranger"]
