"""Password hashes: argon2id (RFC 9106).

Hashing and verifying run in threads, never on the event loop.
"""

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from secrets import token_hex
from typing import TypeVar

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import ARGON2_VERSION, Type

from catalog.auth.normalization import composed
from catalog.auth.passwords.policy import common_passwords
from catalog.errors import Overloaded
from catalog.observability.metrics import count_rejection
from catalog.settings import Settings, usable_cores

T = TypeVar("T")

PASSES = 2
"""Passes of a hash over its memory: the least that OWASP allows with 19 MiB.

``CATALOG_PASSWORD_MEMORY_KIB`` alone makes hashes stronger: memory is what costs an attacker.
"""

MAX_QUEUED = 64
"""Passwords queued in a worker; at 20 ms each, the last one waits a little more than a second."""

NICENESS = 10
"""Niceness of the hashing threads; 19 is the maximum."""


class Passwords:
    """Thread pool for hashing and verifying: one thread per core of the worker, bounded queue.

    One hash occupies a core for about 20 ms, so more threads would only contend. The threads have
    a lower priority than the event loops, which are never busy for long.
    """

    def __init__(
        self, settings: Settings, *, passes: int = PASSES, max_queued: int = MAX_QUEUED
    ) -> None:
        self._hasher = PasswordHasher(
            time_cost=passes,
            memory_cost=settings.password_memory_kib,
            parallelism=1,
        )
        threads = max(1, usable_cores() // settings.workers)
        self._threads = ThreadPoolExecutor(
            threads, thread_name_prefix="passwords", initializer=_give_way
        )
        self._room = threads + max_queued
        if settings.refuse_guessable_passwords:
            # Loaded now, because loading them later would block the event loop under requests.
            common_passwords(settings.password_min_length)
        self._decoy: str | None = None

    async def hash(self, password: str) -> str:
        """Hash a new password.

        Raises:
            Overloaded: the queue is full.
        """
        return await self._run(partial(self._hasher.hash, composed(password)))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Return whether the password matches the hash.

        Without a hash (unknown account) this does the same work and returns False: the response
        time must not reveal which names exist. That work follows the current settings. A hash from
        before they were changed takes as long as the former ones ask for, so that its account is
        distinguishable from an unknown one until its owner has logged in.

        Raises:
            Overloaded: as ``hash``.
        """
        return await self._run(partial(self._verify, password_hash, composed(password)))

    def is_outdated(self, password_hash: str) -> bool:
        """Return whether a hash is weaker than new ones and should be replaced at log-in.

        A hash with more memory or more passes than the settings ask for stays, whatever its other
        parameters: no log-in weakens a hash. Cheap enough for the event loop.
        """
        try:
            found = extract_parameters(password_hash)
        except InvalidHashError:
            return True
        if (found.type, found.version) != (Type.ID, ARGON2_VERSION):
            return True
        current = self._hasher
        if found.memory_cost > current.memory_cost or found.time_cost > current.time_cost:
            return False
        return (
            found.memory_cost < current.memory_cost
            or found.time_cost < current.time_cost
            or found.salt_len < current.salt_len
            or found.hash_len < current.hash_len
        )

    def _verify(self, password_hash: str | None, password: str) -> bool:
        if self._decoy is None:
            self._decoy = self._hasher.hash(token_hex())
        try:
            self._hasher.verify(password_hash or self._decoy, password)
        except (VerificationError, InvalidHashError):
            return False
        return password_hash is not None

    async def _run(self, work: "partial[T]") -> T:
        if self._room <= 0:
            count_rejection("passwords")
            raise Overloaded("Too many passwords are being checked.")
        self._room -= 1
        future = self._threads.submit(work)
        # The slot is freed when the thread finishes, even if the client disconnects before.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._free_place))
        return await asyncio.wrap_future(future)

    def _free_place(self) -> None:
        self._room += 1

    def close(self) -> None:
        """Finish running hashes, cancel queued ones and stop the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def _give_way() -> None:
    """Lower the calling thread's priority, where the platform has priorities per thread."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        # A process may lower its priority, not raise it, and may have been started with a low one.
        if os.getpriority(os.PRIO_PROCESS, thread) < NICENESS:
            os.setpriority(os.PRIO_PROCESS, thread, NICENESS)
