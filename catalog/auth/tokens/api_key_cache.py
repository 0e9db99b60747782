"""Cache of verified API keys, so that a request with one needs no query.

Every process verifies a key by one query, and again after a minute; revocations reach it by the
poll for ended sessions (``revocations.py``). Unknown keys cannot make it query at will: their
refusals are cached, lookups share queries, one at a time, and an address that sends many unknown
keys has to wait.
"""

import time
from collections import OrderedDict
from math import ceil
from typing import NamedTuple, TypeVar

from catalog.auth.models import Scope
from catalog.auth.tokens import api_keys
from catalog.auth.tokens.api_keys import FoundKey
from catalog.auth.tokens.revocations import Revocations
from catalog.db.batch_reader import BatchReader, batch_reader
from catalog.db.database import Database
from catalog.errors import ApiKeysThrottled, TokenExpired, TokenInvalid

T = TypeVar("T")

CACHED_SECONDS = 60.0
"""How long a verified or refused key is cached; less than revocations are kept."""

MAX_CACHED_KEYS = 10_000
"""Verified keys in a process; some 5 MB at the maximum. As many refused ones."""

UNKNOWN_KEYS = 60
"""Unknown keys that an address may send to a process within ``UNKNOWN_SECONDS``."""

UNKNOWN_SECONDS = 60.0

_MAX_ADDRESSES = 10_000


class KeyBearer(NamedTuple):
    """Bearer of an API key.

    Attributes:
        user_id: the account that it belongs to.
        key_id: the key.
        scope: what it may do.
    """

    user_id: int
    key_id: int
    scope: Scope

    @property
    def claims(self) -> dict[str, str]:
        """The identity as a token's claims would give it."""
        return {"sub": str(self.user_id)}

    @property
    def header(self) -> dict[str, str]:
        """The header of a token, which a key has not."""
        return {}


class _Verified(NamedTuple):
    """A verified key; times by the monotonic clock."""

    bearer: KeyBearer
    until: float
    expires: float


class ApiKeyCache:
    """Cache of the verified API keys of one process.

    Args:
        database: the database that has the keys.
        revocations: the keys that were revoked recently.
    """

    def __init__(self, database: Database, revocations: Revocations) -> None:
        self._database = database
        self._revocations = revocations
        # By the key's hash, in the order of the time at which they expire.
        self._verified: OrderedDict[str, _Verified] = OrderedDict()
        self._refused: OrderedDict[str, float] = OrderedDict()
        # By network: unknown keys, and when their count begins anew.
        self._unknown: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._used: set[int] = set()
        self._lookups: BatchReader[str, FoundKey | None, FoundKey | None] = batch_reader(
            database, api_keys.find, lambda _, found: found, max_concurrent_reads=1
        )

    async def authenticate(self, text: str, *, network: str) -> KeyBearer:
        """Return the bearer of a key, by a query only if it was not verified within a minute.

        Args:
            text: the key.
            network: the client's network, for which unknown keys count.

        Raises:
            TokenInvalid: the key is unknown, or was revoked.
            TokenExpired: the key has expired.
            ApiKeysThrottled: the address has sent too many unknown keys.
            DatabaseUnavailable, DatabaseBusy: the key could not be verified.
        """
        # Not the key itself: read access to the memory must not yield keys.
        key_hash = api_keys.hash_of(text)
        # The event loop's clock is the same.
        now = began = time.monotonic()
        verified = self._verified.get(key_hash)
        if verified is None or verified.until <= now:
            if not api_keys.is_well_formed(text) or self._refused.get(key_hash, 0) > now:
                raise TokenInvalid
            verified = await self._look_up(key_hash, network)
            now = time.monotonic()
        if self._revocations.has_lapsed:
            await self._revocations.refresh(since=began)
        if self._revocations.is_revoked(verified.bearer.key_id):
            raise TokenInvalid
        if verified.expires <= now:
            raise TokenExpired("The API key has expired.")
        return verified.bearer

    async def _look_up(self, key_hash: str, network: str) -> _Verified:
        began = time.monotonic()
        count, until = self._unknown.get(network, (0, 0.0))
        if count >= UNKNOWN_KEYS and began < until:
            raise ApiKeysThrottled(retry_after_seconds=max(1, ceil(until - began)))
        found = await self._lookups.load(key_hash, key_hash)
        # From the beginning of the lookup: a revocation that it missed is polled for after that.
        expires = began + CACHED_SECONDS
        if found is None:
            _keep(self._refused, key_hash, expires, MAX_CACHED_KEYS)
            self._count_unknown(network, began)
            raise TokenInvalid
        bearer = KeyBearer(found.user_id, found.key_id, Scope(found.scope))
        # By the database's clock, which has made the key.
        life = (found.expires_at - found.now).total_seconds() if found.expires_at else float("inf")
        verified = _Verified(bearer, expires, began + life)
        _keep(self._verified, key_hash, verified, MAX_CACHED_KEYS)
        if found.is_due:
            self._used.add(found.key_id)
        return verified

    def _count_unknown(self, network: str, now: float) -> None:
        count, until = self._unknown.get(network, (0, 0.0))
        if now >= until:
            count, until = 0, now + UNKNOWN_SECONDS
        _keep(self._unknown, network, (count + 1, until), _MAX_ADDRESSES)

    async def write_last_used(self) -> None:
        """Write when keys were last used, for those for which that is due.

        Raises:
            DatabaseUnavailable, DatabaseBusy: it failed; the next call tries again.
        """
        if not self._used:
            return
        used = sorted(self._used)
        await self._database.transaction(api_keys.touch, key_ids=used)
        self._used.difference_update(used)


def _keep(cache: OrderedDict[str, T], key: str, value: T, size: int) -> None:
    """Set a cache's value as its newest, and evict the oldest beyond the size."""
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > size:
        cache.popitem(last=False)
