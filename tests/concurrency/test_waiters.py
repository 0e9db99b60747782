"""Waiters get a result or a copy of an error."""

import asyncio

from catalog.concurrency.waiters import copy_of, settle


class TestSettle:
    async def test_waiter_gets_a_result_or_an_error_once(self) -> None:
        loop = asyncio.get_running_loop()
        served: asyncio.Future[str] = loop.create_future()
        failed: asyncio.Future[str] = loop.create_future()

        settle(served, "answer")
        settle(served, "another")
        settle(failed, ValueError("bad"))

        assert await served == "answer"
        assert isinstance(failed.exception(), ValueError)

    async def test_cancelled_waiter_is_left_alone(self) -> None:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        future.cancel()

        settle(future, "answer")

        assert future.cancelled()


def test_copy_of_an_error_keeps_its_cause() -> None:
    error = ValueError("bad")
    error.__cause__ = KeyError("why")

    copied = copy_of(error)

    assert copied is not error
    assert (copied.args, copied.__cause__) == (error.args, error.__cause__)


def test_error_that_cannot_be_copied_is_shared() -> None:
    class Coded(Exception):
        def __init__(self, code: int, reason: str) -> None:
            super().__init__(f"{code}: {reason}")

    error = Coded(7, "bad")

    assert copy_of(error) is error
