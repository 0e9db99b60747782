"""Waiters are popped oldest first, without those that were cancelled or have waited too long."""

import asyncio
from collections import deque
from typing import NamedTuple

from catalog.concurrency.waiters import copy_of, pop_batch, settle


class Caller(NamedTuple):
    """A waiter with a name and a size."""

    name: str
    since: float
    outcome: "asyncio.Future[str]"
    size: int = 1


def caller(name: str, *, waited: float = 0.0, size: int = 1) -> Caller:
    loop = asyncio.get_running_loop()
    return Caller(name, loop.time() - waited, loop.create_future(), size)


def popped(queue: deque[Caller], max_waiters: int = 10, **options: int) -> list[str]:
    batch = pop_batch(
        queue,
        max_waiters,
        patience=5,
        expired=TimeoutError,
        size_of=lambda each: each.size,
        max_size=options.get("max_size", 1000),
    )
    return [each.name for each in batch]


class TestPopBatch:
    async def test_oldest_come_first_and_the_rest_stays(self) -> None:
        queue = deque(map(caller, "abc"))

        assert popped(queue, max_waiters=2) == ["a", "b"]
        assert [each.name for each in queue] == ["c"]

    async def test_cancelled_waiter_is_dropped(self) -> None:
        queue = deque(map(caller, "ab"))
        queue[0].outcome.cancel()

        assert popped(queue) == ["b"]

    async def test_waiter_beyond_its_patience_gets_an_error(self) -> None:
        late = caller("a", waited=6)
        queue = deque([late, caller("b")])

        assert popped(queue) == ["b"]
        assert isinstance(late.outcome.exception(), TimeoutError)

    async def test_batch_ends_before_its_size_is_exceeded_unless_it_is_empty(self) -> None:
        queue = deque([caller("a", size=9), caller("b", size=2), caller("c", size=2)])

        assert popped(queue, max_size=5) == ["a"]
        assert popped(queue, max_size=5) == ["b", "c"]

    async def test_batch_may_have_exactly_the_largest_size(self) -> None:
        queue = deque([caller("a", size=2), caller("b", size=3), caller("c", size=1)])

        assert popped(queue, max_size=5) == ["a", "b"]

    async def test_batch_has_no_largest_size_by_default(self) -> None:
        queue = deque(map(caller, "abc"))

        batch = pop_batch(queue, 10, patience=5, expired=TimeoutError)

        assert [each.name for each in batch] == ["a", "b", "c"]


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
