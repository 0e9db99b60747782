"""What the running app holds for accounts and tokens, typed."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from quart import Quart, current_app
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth.keys import KeyRing
from catalog.auth.passwords import Passwords
from catalog.auth.revocations import Revocations

_EXTENSION = "catalog.auth"


@dataclass(frozen=True, slots=True)
class Auth:
    """One app's keys and password threads, and its list of what changed since tokens were made.

    Attributes:
        farewell: takes away what an account has elsewhere, in the transaction that deletes it.
    """

    keys: KeyRing
    passwords: Passwords
    revocations: Revocations
    on_account_delete: Callable[[AsyncSession, int], Awaitable[None]]


def attach(app: Quart, auth: Auth) -> None:
    """Attach it to an app; once, when the app is made."""
    app.extensions[_EXTENSION] = auth


def auth(app: Quart | None = None) -> Auth:
    """That of the given app, or of the one handling this request."""
    held: Auth = (app or current_app).extensions[_EXTENSION]
    return held
