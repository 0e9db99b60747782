"""Passwords: argon2id, off the event loop, with a bounded queue."""

import asyncio
import unicodedata
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type

from catalog.auth.passwords import Passwords
from catalog.auth.routes import PASSWORDS
from catalog.errors import Overloaded
from catalog.settings import Settings
from tests.engines import SECRET
from tests.http.wire import app_without_database
from tests.support import PASSWORD, Caller, problem_of


def passwords_with(**overrides: Any) -> Passwords:
    return Passwords(Settings(jwt_secret_key=SECRET, **overrides))


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    """Hashes and verifies as by default."""
    passwords = passwords_with()
    yield passwords
    passwords.close()


class TestHash:
    async def test_it_is_argon2id_as_strong_as_promised(self, passwords: Passwords) -> None:
        parameters = extract_parameters(await passwords.hash(PASSWORD))

        assert parameters.type is Type.ID
        assert parameters.memory_cost >= 19456
        assert parameters.time_cost >= 2
        assert parameters.parallelism == 1
        assert parameters.salt_len >= 16

    async def test_settings_make_it_stronger(self) -> None:
        passwords = passwords_with(password_memory_kib=20480, password_passes=3)

        parameters = extract_parameters(await passwords.hash(PASSWORD))
        passwords.close()

        assert (parameters.memory_cost, parameters.time_cost) == (20480, 3)

    async def test_it_is_salted_and_holds_no_password(self, passwords: Passwords) -> None:
        first, second = await passwords.hash(PASSWORD), await passwords.hash(PASSWORD)

        assert first != second
        assert PASSWORD not in first

    async def test_the_event_loop_goes_on_meanwhile(self, passwords: Passwords) -> None:
        hashing = asyncio.create_task(passwords.hash(PASSWORD))

        turns = 0
        while not hashing.done():
            await asyncio.sleep(0)
            turns += 1

        assert turns > 10


class TestVerify:
    async def test_the_password_and_no_other(self, passwords: Passwords) -> None:
        password_hash = await passwords.hash(PASSWORD)

        assert await passwords.verify(password_hash, PASSWORD)
        for other in ("", PASSWORD + " ", PASSWORD[:-1], PASSWORD.upper(), PASSWORD + "\0"):
            assert not await passwords.verify(password_hash, other)

    @pytest.mark.parametrize("password", ["andré-andré", "Å" * 8, "각각각각각각각각"])
    async def test_forms_of_the_same_characters_are_equal(
        self, passwords: Passwords, password: str
    ) -> None:
        composed = unicodedata.normalize("NFC", password)
        decomposed = unicodedata.normalize("NFD", password)
        assert composed != decomposed

        password_hash = await passwords.hash(decomposed)

        assert await passwords.verify(password_hash, composed)
        assert await passwords.verify(password_hash, decomposed)

    async def test_characters_that_only_look_alike_are_not(self, passwords: Passwords) -> None:
        password_hash = await passwords.hash("ﬁnal²")

        assert not await passwords.verify(password_hash, "final2")

    @pytest.mark.parametrize(
        "stored",
        ["", "x", "plain text", "$argon2id$", "$2b$12$abcdefghijklmnopqrstuu", "$argon2id$v=19$"],
    )
    async def test_what_is_no_hash_matches_nothing(self, passwords: Passwords, stored: str) -> None:
        assert not await passwords.verify(stored, stored)

    async def test_of_two_hashes_the_weaker_still_verifies(self, passwords: Passwords) -> None:
        weaker = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)

        assert await passwords.verify(weaker, PASSWORD)

    async def test_an_unknown_account_costs_the_same_work(
        self, passwords: Passwords, verified: list[str]
    ) -> None:
        known = await passwords.hash(PASSWORD)

        assert not await passwords.verify(known, "wrong")
        assert not await passwords.verify(None, "wrong")

        assert verified[0] == known
        assert len(verified) == 2
        assert extract_parameters(verified[1]) == extract_parameters(known)

    async def test_no_password_is_the_one_of_no_account(
        self, passwords: Passwords, verified: list[str]
    ) -> None:
        for password in ("", "x", PASSWORD):
            assert not await passwords.verify(None, password)

        # One decoy serves all, so that only the first call pays for making it.
        assert len(verified) == 3
        assert len(set(verified)) == 1


class TestQueue:
    @pytest.fixture
    async def narrow(self) -> AsyncIterator[Passwords]:
        """One thread, and room for two to wait."""
        passwords = passwords_with(workers=256, password_queue=2)
        yield passwords
        passwords.close()

    async def test_beyond_it_no_password_is_taken(self, narrow: Passwords) -> None:
        attempts = [narrow.verify(None, PASSWORD) for _ in range(20)]

        results = await asyncio.gather(*attempts, return_exceptions=True)

        assert results.count(False) == 3
        assert sum(isinstance(result, Overloaded) for result in results) == 17

    async def test_it_is_free_again_afterwards(self, narrow: Passwords) -> None:
        for _ in range(3):
            results = await asyncio.gather(*(narrow.verify(None, PASSWORD) for _ in range(3)))

            assert results == [False] * 3

    async def test_who_hangs_up_keeps_the_place_until_the_work_is_done(
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

    async def test_all_places_come_back_from_those_who_hang_up(self, narrow: Passwords) -> None:
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
    async def test_who_finds_it_full_is_told_at_once_to_come_back(self, tmp_path: Path) -> None:
        app = app_without_database(tmp_path, workers=256, password_queue=1, password_passes=20)
        passwords: Passwords = app.extensions[PASSWORDS]
        others = [asyncio.create_task(passwords.hash(PASSWORD)) for _ in range(2)]
        await asyncio.sleep(0)

        answer = await Caller(app).sign_up("ada")
        health = await Caller(app).get("/livez")
        are_done = [task.done() for task in others]
        await asyncio.gather(*others)
        passwords.close()

        # problem_of() looks for Retry-After with every 503.
        assert problem_of(answer) == (503, "overloaded")
        assert health.status_code == 200
        assert are_done == [False, False]


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that argon2 is made to verify against, in turn."""
    hashes: list[str] = []
    verify = PasswordHasher.verify

    def noting(hasher: PasswordHasher, password_hash: str, password: str) -> Any:
        hashes.append(password_hash)
        return verify(hasher, password_hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", noting)
    return hashes
