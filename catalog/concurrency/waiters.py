"""Callers that wait for a shared operation: their outcomes, and the queue that they wait in."""

import asyncio
from collections import deque
from collections.abc import Callable
from copy import copy
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

Expired = Callable[[], Exception]
"""Makes the error of a caller that has waited too long."""


class Waiter(Protocol):
    """Caller in a queue.

    Attributes:
        since: time of arrival, by the loop's clock.
        outcome: future that the caller awaits.
    """

    @property
    def since(self) -> float: ...
    @property
    def outcome(self) -> asyncio.Future[Any]: ...


W = TypeVar("W", bound=Waiter)


def settle(future: asyncio.Future[T], outcome: T | Exception) -> None:
    """Give a waiter its result or its error, unless it was cancelled or has timed out."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def copy_of(error: E) -> E:
    """Copy an error for one more waiter, with its cause for the log.

    Each request may add headers and a traceback to its own.
    """
    copied = copy(error)
    copied.__cause__ = error.__cause__
    return copied


def pop_batch(
    queue: deque[W],
    max_waiters: int,
    *,
    patience: float,
    expired: Expired,
    size_of: Callable[[W], int] = lambda _: 0,
    max_size: int = 0,
) -> list[W]:
    """Pop the oldest live waiters from a queue.

    Cancelled waiters are dropped, and those that have waited too long get an error.

    Args:
        queue: waiters, oldest first.
        max_waiters: largest number of waiters in the batch.
        patience: seconds after which a waiter has waited too long.
        expired: makes the error for such a waiter.
        size_of: returns a waiter's size.
        max_size: largest total size of the batch; a single waiter may exceed it.
    """
    size = 0
    began_after = asyncio.get_running_loop().time() - patience
    batch: list[W] = []
    while queue and len(batch) < max_waiters:
        size += size_of(queue[0])
        if batch and size > max_size:
            break
        waiter = queue.popleft()
        if waiter.outcome.done():
            continue
        if waiter.since < began_after:
            waiter.outcome.set_exception(expired())
        else:
            batch.append(waiter)
    return batch
