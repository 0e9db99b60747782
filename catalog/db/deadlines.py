"""Deadlines of units of work: each has its own, and those of one request may share one more.

A request waits for the database before its work begins if its token or key has to be checked there
first. That wait is part of the deadline of the work that follows, but not of what a stream or an
import does later.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Time limits in seconds.

    Attributes:
        checkout: for a wait for a free connection; beyond it the response is 503. Waiting longer
            would only lengthen the queue of a database that is too slow already.
        connect: for a new connection, TLS and authentication included. Shorter than ``write``, so
            that a write whose connection cannot be opened still gets an answer of its own.
        read: for a read, its wait and one retry included. Pages take milliseconds at any depth.
        write: for a transaction, with waits and retries. Twice the longest lock wait, and far less
            than the 40 s for which nginx waits for a response.
    """

    checkout: float = 1.0
    connect: float = 3.0
    read: float = 2.0
    write: float = 5.0


DEADLINES = Deadlines()

_ENDS_AT: ContextVar[float | None] = ContextVar("catalog.database.ends_at", default=None)

AFTER_SECONDS = 1.0
"""Time from the end of a wait within which work must begin for the wait to count towards it."""

_WAITED: ContextVar[tuple[float, float]] = ContextVar("catalog.database.waited", default=(0.0, 0.0))
"""How long a request has waited, and when the wait ended."""

_KEY = "catalog.deadline"


@contextmanager
def after_waiting(seconds: float) -> Iterator[None]:
    """Count a request's wait towards the deadlines of what soon begins inside the context.

    Args:
        seconds: time that the request has waited for the database until now.
    """
    token = _WAITED.set((seconds, asyncio.get_running_loop().time()))
    try:
        yield
    finally:
        _WAITED.reset(token)


def deadline_start() -> float:
    """Return when the deadline of work that begins now started, by the loop's clock.

    That is earlier than now by what the request has waited for the database.
    """
    now = asyncio.get_running_loop().time()
    waited, ended = _WAITED.get()
    return now - waited if now < ended + AFTER_SECONDS else now


@contextmanager
def shared_deadline(seconds: float) -> Iterator[None]:
    """Put all units of work inside the context under one deadline.

    Args:
        seconds: from ``deadline_start`` on; each unit also has a deadline of its own.
    """
    token = _ENDS_AT.set(deadline_start() + seconds)
    try:
        yield
    finally:
        _ENDS_AT.reset(token)


def deadline(seconds: float) -> asyncio.Timeout:
    """Return the deadline of a unit of work that begins now, as a context manager."""
    when = deadline_start() + seconds
    ends_at = _ENDS_AT.get()
    return asyncio.timeout_at(when if ends_at is None else min(when, ends_at))


def session_info(timeout: asyncio.Timeout, seconds: float) -> dict[Any, Any]:
    """Return the ``info`` of a session whose deadline its work may renew or suspend."""
    return {_KEY: (timeout, seconds)}


def renew_deadline(session: AsyncSession) -> None:
    """Restart a transaction's deadline for its next step; for transactions of many steps."""
    timeout, seconds = session.info[_KEY]
    timeout.reschedule(asyncio.get_running_loop().time() + seconds)


@contextmanager
def suspended_deadline(session: AsyncSession) -> Iterator[None]:
    """Suspend a transaction's deadline inside the context, for a wait that is bounded elsewhere.

    The deadline restarts afterwards.
    """
    timeout, _ = session.info[_KEY]
    timeout.reschedule(None)
    yield
    renew_deadline(session)
