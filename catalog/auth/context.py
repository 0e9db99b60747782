"""Typed access to the running app's keys, password hashing and revocations."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from quart import Quart
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth.account_reader import AccountReader
from catalog.auth.passwords.hashing import Passwords
from catalog.auth.tokens.keys import KeyRing
from catalog.auth.tokens.known_keys import KnownKeys
from catalog.auth.tokens.revocations import Revocations
from catalog.http.request import current_request

_EXTENSION = "catalog.auth"


@dataclass(frozen=True, slots=True)
class Auth:
    """One app's signing keys, hashing threads, revocations, verified API keys and account reader.

    Attributes:
        on_account_delete: deletes an account's other data, in the transaction that deletes it.
    """

    keys: KeyRing
    passwords: Passwords
    revocations: Revocations
    known_keys: KnownKeys
    accounts: AccountReader
    on_account_delete: Callable[[AsyncSession, int], Awaitable[None]]


def attach(app: Quart, auth: Auth) -> None:
    """Attach it to an app; called once, when the app is created."""
    app.extensions[_EXTENSION] = auth


def auth(app: Quart | None = None) -> Auth:
    """Return the ``Auth`` of the given app, or of the one handling this request."""
    held: Auth = (app or current_request().app).extensions[_EXTENSION]
    return held
