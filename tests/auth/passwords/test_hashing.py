"""Password hashes: argon2id, off the event loop, with a bounded queue."""

import asyncio
import os
import platform
import subprocess
import sys
import threading
import unicodedata
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type

from catalog.auth.context import auth
from catalog.auth.passwords import hashing
from catalog.auth.passwords.hashing import MAX_QUEUED, NICENESS, PASSES, Passwords
from catalog.errors import Overloaded
from catalog.settings import Settings, environment_of_worker
from tests.engines import SECRET
from tests.http.wire import app_without_database
from tests.support import PASSWORD, Caller, problem_of

HASH_BYTES = 19456 * 1024

# Prints how much larger a process is after some hashes, in bytes.
HASHES = """
import asyncio, os, sys
from pathlib import Path
from catalog.auth.passwords.hashing import Passwords
from catalog.settings import Settings

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def main():
    before = resident()
    passwords = Passwords(Settings(jwt_secret_key=sys.argv[1], workers=os.cpu_count()))
    for _ in range(3):
        await passwords.hash("correct horse battery staple")
    print(resident() - before)

asyncio.run(main())
"""


def kept_bytes(environment: Mapping[str, str]) -> int:
    """Return the memory that a process with this environment keeps after hashing passwords."""
    command = [sys.executable, "-c", HASHES, SECRET.get_secret_value()]
    hashed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return int(hashed.stdout)


def passwords_with(
    *, passes: int = PASSES, max_queued: int = MAX_QUEUED, **overrides: Any
) -> Passwords:
    settings = Settings(jwt_secret_key=SECRET, **overrides)
    return Passwords(settings, passes=passes, max_queued=max_queued)


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    """Return the hasher with default settings."""
    passwords = passwords_with()
    yield passwords
    passwords.close()


class TestHash:
    async def test_hash_is_argon2id_with_the_promised_parameters(
        self, passwords: Passwords
    ) -> None:
        parameters = extract_parameters(await passwords.hash(PASSWORD))

        assert parameters.type is Type.ID
        assert parameters.memory_cost >= 19456
        assert parameters.time_cost >= 2
        assert parameters.parallelism == 1
        assert parameters.salt_len >= 16

    async def test_memory_comes_from_the_settings_and_passes_from_the_caller(self) -> None:
        passwords = passwords_with(password_memory_kib=20480, passes=3)

        parameters = extract_parameters(await passwords.hash(PASSWORD))
        passwords.close()

        assert (parameters.memory_cost, parameters.time_cost) == (20480, 3)

    async def test_hash_is_salted_and_does_not_contain_the_password(
        self, passwords: Passwords
    ) -> None:
        first, second = await passwords.hash(PASSWORD), await passwords.hash(PASSWORD)

        assert first != second
        assert PASSWORD not in first

    async def test_event_loop_is_not_blocked_by_hashing(self, passwords: Passwords) -> None:
        hashing = asyncio.create_task(passwords.hash(PASSWORD))

        turns = 0
        while not hashing.done():
            await asyncio.sleep(0)
            turns += 1

        assert turns > 10


class TestVerify:
    async def test_only_the_same_password_verifies(self, passwords: Passwords) -> None:
        password_hash = await passwords.hash(PASSWORD)

        assert await passwords.verify(password_hash, PASSWORD)
        for other in ("", PASSWORD + " ", PASSWORD[:-1], PASSWORD.upper(), PASSWORD + "\0"):
            assert not await passwords.verify(password_hash, other)

    @pytest.mark.parametrize("password", ["andré-andré", "Å" * 8, "각각각각각각각각"])
    async def test_normal_forms_of_a_password_are_equal(
        self, passwords: Passwords, password: str
    ) -> None:
        composed = unicodedata.normalize("NFC", password)
        decomposed = unicodedata.normalize("NFD", password)
        assert composed != decomposed

        password_hash = await passwords.hash(decomposed)

        assert await passwords.verify(password_hash, composed)
        assert await passwords.verify(password_hash, decomposed)

    async def test_compatibility_characters_are_not_equal(self, passwords: Passwords) -> None:
        password_hash = await passwords.hash("ﬁnal²")

        assert not await passwords.verify(password_hash, "final2")

    @pytest.mark.parametrize(
        "stored",
        ["", "x", "plain text", "$argon2id$", "$2b$12$abcdefghijklmnopqrstuu", "$argon2id$v=19$"],
    )
    async def test_malformed_hash_matches_nothing(self, passwords: Passwords, stored: str) -> None:
        assert not await passwords.verify(stored, stored)

    async def test_hash_with_weaker_parameters_still_verifies(self, passwords: Passwords) -> None:
        weaker = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)

        assert await passwords.verify(weaker, PASSWORD)

    async def test_unknown_account_costs_the_same_verification(
        self, passwords: Passwords, verifications: list[tuple[str, str]]
    ) -> None:
        known = await passwords.hash(PASSWORD)

        assert not await passwords.verify(known, "wrong")
        assert not await passwords.verify(None, "wrong")

        verified = [password_hash for password_hash, _ in verifications]
        assert verified[0] == known
        assert len(verified) == 2
        assert extract_parameters(verified[1]) == extract_parameters(known)

    async def test_decoy_hash_matches_no_password(
        self, passwords: Passwords, verifications: list[tuple[str, str]]
    ) -> None:
        for password in ("", "x", PASSWORD):
            assert not await passwords.verify(None, password)

        # All calls share one decoy hash, which the first call makes.
        assert len(verifications) == 3
        assert len({password_hash for password_hash, _ in verifications}) == 1


def hash_of(memory: int, passes: int, *, kind: Type = Type.ID, salt_len: int = 16) -> str:
    hasher = PasswordHasher(passes, memory, parallelism=1, salt_len=salt_len, type=kind)
    return hasher.hash(PASSWORD)


class TestIsOutdated:
    """Checked against settings of 20480 KiB and 3 passes."""

    @pytest.fixture
    def stronger(self) -> Iterator[Passwords]:
        passwords = passwords_with(password_memory_kib=20480, passes=3)
        yield passwords
        passwords.close()

    async def test_fresh_hash_is_not_outdated(self, stronger: Passwords) -> None:
        assert not stronger.is_outdated(await stronger.hash(PASSWORD))

    @pytest.mark.parametrize(("memory", "passes"), [(19456, 2), (19456, 3), (20480, 2), (8, 1)])
    def test_weaker_hash_is_outdated(self, stronger: Passwords, memory: int, passes: int) -> None:
        assert stronger.is_outdated(hash_of(memory, passes))

    @pytest.mark.parametrize(("memory", "passes"), [(20481, 3), (20480, 4), (20481, 1), (8, 4)])
    def test_hash_stronger_in_one_parameter_is_not_outdated(
        self, stronger: Passwords, memory: int, passes: int
    ) -> None:
        assert not stronger.is_outdated(hash_of(memory, passes))

    def test_other_variant_or_shorter_salt_is_outdated(self, stronger: Passwords) -> None:
        for kind in (Type.I, Type.D):
            assert stronger.is_outdated(hash_of(40960, 3, kind=kind))
        assert stronger.is_outdated(hash_of(20480, 3, salt_len=8))

    def test_malformed_hash_is_outdated(self, stronger: Passwords) -> None:
        assert stronger.is_outdated("")
        assert stronger.is_outdated("$2b$12$abcdefghijklmnopqrstuu")


@pytest.mark.skipif(sys.platform != "linux", reason="only there a thread has a priority")
class TestPriority:
    async def test_hashing_thread_has_a_lower_priority_than_the_event_loop(
        self, passwords: Passwords, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hashing, "NICENESS", NICENESS)
        here = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        before = set(threading.enumerate())

        await passwords.hash(PASSWORD)

        started = set(threading.enumerate()) - before
        priorities = [os.getpriority(os.PRIO_PROCESS, each.native_id or 0) for each in started]
        assert priorities == [max(here, NICENESS)]
        assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == here


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tunes the allocator of glibc")
class TestMemory:
    def test_worker_returns_the_memory_of_its_hashes(self) -> None:
        assert kept_bytes(environment_of_worker(None)) < HASH_BYTES / 2

    def test_memory_would_stay_by_the_allocators_defaults(self) -> None:
        environment = {**os.environ}
        environment.pop("GLIBC_TUNABLES", None)

        assert kept_bytes(environment) > HASH_BYTES / 2

    def test_allocator_tuned_by_the_operator_stays_so(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")

        assert environment_of_worker(None)["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=2"


class TestQueue:
    @pytest.fixture
    async def narrow(self) -> AsyncIterator[Passwords]:
        """Return a hasher with one thread and a queue of two."""
        passwords = passwords_with(workers=256, max_queued=2)
        yield passwords
        passwords.close()

    async def test_password_beyond_the_queue_is_refused(self, narrow: Passwords) -> None:
        attempts = [narrow.verify(None, PASSWORD) for _ in range(20)]

        results = await asyncio.gather(*attempts, return_exceptions=True)

        assert results.count(False) == 3
        assert sum(isinstance(result, Overloaded) for result in results) == 17

    async def test_queue_is_free_again_afterwards(self, narrow: Passwords) -> None:
        for _ in range(3):
            results = await asyncio.gather(*(narrow.verify(None, PASSWORD) for _ in range(3)))

            assert results == [False] * 3

    async def test_cancelled_caller_holds_its_slot_until_the_work_is_done(
        self, narrow: Passwords
    ) -> None:
        waiting = [asyncio.create_task(narrow.verify(None, PASSWORD)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)

        with pytest.raises(Overloaded):
            await narrow.hash(PASSWORD)

        await asyncio.gather(*waiting, return_exceptions=True)
        assert waiting[0].cancelled()

    async def test_slots_of_cancelled_callers_are_released(self, narrow: Passwords) -> None:
        for _ in range(4):
            waiting = [asyncio.create_task(narrow.verify(None, PASSWORD)) for _ in range(3)]
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await hashed_once_there_is_room(narrow)

        results = await asyncio.gather(*(narrow.verify(None, PASSWORD) for _ in range(3)))
        assert results == [False] * 3


async def hashed_once_there_is_room(passwords: Passwords) -> None:
    while True:
        try:
            await passwords.hash(PASSWORD)
        except Overloaded:
            await asyncio.sleep(0)
        else:
            return


class TestQueueOverHttp:
    async def test_full_queue_is_answered_with_503_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.app.Passwords", partial(Passwords, max_queued=1, passes=20))
        app = app_without_database(tmp_path, workers=256)
        passwords = auth(app).passwords
        others = [asyncio.create_task(passwords.hash(PASSWORD)) for _ in range(2)]
        await asyncio.sleep(0)

        answer = await Caller(app).sign_up("ada")
        health = await Caller(app).get("/livez")
        are_done = [task.done() for task in others]
        await asyncio.gather(*others)
        passwords.close()

        # problem_of() checks Retry-After on every 503.
        assert problem_of(answer) == (503, "overloaded")
        assert health.status_code == 200
        assert are_done == [False, False]
