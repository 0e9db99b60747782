"""The app's state for accounts: keys, password hashing and revocations."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth.account_reader import AccountReader
from catalog.auth.passwords.hashing import Passwords
from catalog.auth.session_reader import SessionReader
from catalog.auth.tokens.api_key_cache import ApiKeyCache
from catalog.auth.tokens.revocations import Revocations
from catalog.auth.tokens.signing_keys import KeyRing
from catalog.http.context import AppExtension


@dataclass(frozen=True, slots=True)
class Auth:
    """One app's signing keys, hashing threads, revocations, verified API keys and readers.

    Attributes:
        on_account_delete: deletes an account's other data, or a part of it if it is much, in a
            transaction of ``accounts.delete_account``; tells whether it was all.
    """

    signing_keys: KeyRing
    passwords: Passwords
    revocations: Revocations
    api_key_cache: ApiKeyCache
    accounts: AccountReader
    sessions: SessionReader
    on_account_delete: Callable[[AsyncSession, int], Awaitable[bool]]


auth = AppExtension[Auth]("catalog.auth")
