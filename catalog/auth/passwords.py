"""Passwords: argon2id (RFC 9106), hashed and verified in threads, never on the event loop."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from secrets import token_hex
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from catalog.auth.names import composed
from catalog.errors import Overloaded
from catalog.settings import Settings, usable_cores

T = TypeVar("T")


class Passwords:
    """Hashes and verifies with as many threads as this worker has cores, and a bounded queue.

    One hash keeps a core busy for some 20 ms, so more threads would only make each other wait.
    """

    def __init__(self, settings: Settings) -> None:
        self._hasher = PasswordHasher(
            time_cost=settings.password_passes,
            memory_cost=settings.password_memory_kib,
            parallelism=1,
        )
        threads = max(1, usable_cores() // settings.workers)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._room = threads + settings.password_queue
        self._decoy: str | None = None

    async def hash(self, password: str) -> str:
        """Hash a new password.

        Raises:
            Overloaded: too many passwords are waiting already.
        """
        return await self._run(partial(self._hasher.hash, composed(password)))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password belongs to the hash.

        Without a hash, because the account is unknown, it does the same work and says no: the
        time an answer takes must not tell which names exist.

        Raises:
            Overloaded: as ``hash``.
        """
        return await self._run(partial(self._verify, password_hash, composed(password)))

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
            raise Overloaded("Too many passwords are being checked.")
        self._room -= 1
        future = self._threads.submit(work)
        # The place is free when the thread is, which a client that hangs up does not change.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._free_place))
        return await asyncio.wrap_future(future)

    def _free_place(self) -> None:
        self._room += 1

    def close(self) -> None:
        """Finish what is being hashed and end the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)
