"""Passwords: which may be chosen, and their hashes: argon2id (RFC 9106).

Hashing and verifying happen in threads, never on the event loop.
"""

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from itertools import islice
from secrets import token_hex
from typing import TypeVar

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import ARGON2_VERSION, Type

from catalog.auth.models import MAX_PASSWORD
from catalog.auth.normalization import MAX_PASSWORD_CODE_POINTS, check_marks, composed, fold
from catalog.errors import Overloaded
from catalog.observability.metrics import count_rejection
from catalog.settings import Settings, usable_cores

T = TypeVar("T")

COMMON_PASSWORDS = 3000
"""How many of the most common passwords are refused (OWASP ASVS 5.0, 6.2.4)."""

NICENESS = 10
"""How far the threads that hash give way to all others; 19 would be as far as possible."""

SERVICE_NAME = "catalog"
"""What people call the service, and so may call their password."""


def check_choice(
    password: str, *, min_length: int, refuse_guessable: bool, username: str, email: str
) -> None:
    """See whether a password may be chosen; nothing is asked of which characters it has.

    Args:
        password: as it was given.
        min_length: the fewest characters.
        refuse_guessable: whether it must not be a common password either, nor one that the
            account suggests (OWASP ASVS 5.0, 6.2.4 and 6.2.11).
        username: of the account that it is for.
        email: of the same.

    Raises:
        ValueError: it may not; never repeats it.
    """
    if (
        len(password) > MAX_PASSWORD_CODE_POINTS
        or not min_length <= len(composed(password)) <= MAX_PASSWORD
    ):
        raise ValueError(f"must have {min_length} to {MAX_PASSWORD} characters")
    check_marks(password)
    if not refuse_guessable:
        return
    if composed(password).casefold() in common_passwords(min_length):
        raise ValueError(f"must not be one of the {COMMON_PASSWORDS:,} most common passwords")
    suggested = (username, email, email.rpartition("@")[0], SERVICE_NAME)
    if _core(password) in {_core(word) for word in suggested}:
        raise ValueError(
            "must not be the username, the e-mail address or the name of the service, "
            "nor one of them with digits or signs around it"
        )


def _core(text: str) -> str:
    """A text folded and without what are no letters at its ends, unless nothing else is there."""
    folded = fold(text)
    return folded.strip("".join(each for each in folded if not each.isalpha())) or folded


@cache
def common_passwords(min_length: int) -> frozenset[str]:
    """The most common passwords of those that are long enough, in lower case.

    To read them takes 20 ms.
    """
    # By path, because the package's own import makes dictionaries of these and all its other
    # lists, and keeps them: 13 MB in each worker.
    package = find_spec("zxcvbn")
    folders = package.submodule_search_locations if package else None
    spec = PathFinder.find_spec("frequency_lists", folders)
    if spec is None or spec.loader is None:
        raise ImportError("zxcvbn has no frequency_lists")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    by_frequency: list[str] = module.FREQUENCY_LISTS["passwords"]
    long_enough = (each for each in by_frequency if len(each) >= min_length)
    return frozenset(islice(long_enough, COMMON_PASSWORDS))


class Passwords:
    """Hashes and verifies with as many threads as this worker has cores, and a bounded queue.

    One hash keeps a core busy for some 20 ms, so more threads would only make each other wait.
    They give way to the event loops, which never have work for long.
    """

    def __init__(self, settings: Settings) -> None:
        self._hasher = PasswordHasher(
            time_cost=settings.password_passes,
            memory_cost=settings.password_memory_kib,
            parallelism=1,
        )
        threads = max(1, usable_cores() // settings.workers)
        self._threads = ThreadPoolExecutor(
            threads, thread_name_prefix="passwords", initializer=_give_way
        )
        self._room = threads + settings.password_queue
        if settings.refuse_guessable_passwords:
            # Read now, before anybody waits for the event loop that reading them would hold up.
            common_passwords(settings.password_min_length)
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
        time an answer takes must not tell which names exist. The work is what the settings ask
        for. A hash from before they were changed takes as long as they asked for then, so that
        its account can be told from none until its owner has logged in.

        Raises:
            Overloaded: as ``hash``.
        """
        return await self._run(partial(self._verify, password_hash, composed(password)))

    def is_outdated(self, password_hash: str) -> bool:
        """Whether a hash is weaker than those made now, and should be replaced at log-in.

        One with more memory or with more passes than the settings ask for stays, whatever else:
        no log-in makes a hash weaker. No work, so that it can be asked on the event loop.
        """
        try:
            found = extract_parameters(password_hash)
        except InvalidHashError:
            return True
        if (found.type, found.version) != (Type.ID, ARGON2_VERSION):
            return True
        wanted = self._hasher
        if found.memory_cost > wanted.memory_cost or found.time_cost > wanted.time_cost:
            return False
        return (
            found.memory_cost < wanted.memory_cost
            or found.time_cost < wanted.time_cost
            or found.salt_len < wanted.salt_len
            or found.hash_len < wanted.hash_len
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
        # The place is free when the thread is, which a client that hangs up does not change.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._free_place))
        return await asyncio.wrap_future(future)

    def _free_place(self) -> None:
        self._room += 1

    def close(self) -> None:
        """Finish what is being hashed and end the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def _give_way() -> None:
    """Lower the priority of the thread that calls, where threads have one of their own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
