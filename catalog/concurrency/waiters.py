"""Callers that wait for a shared operation: their outcomes."""

import asyncio
from collections.abc import Callable
from copy import copy
from typing import TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

Expired = Callable[[], Exception]
"""Makes the error of a caller that has waited too long."""


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

    Each request may add headers and a traceback to its own. An error whose class takes other
    arguments than it passes on cannot be copied: the waiters share it.
    """
    try:
        copied = copy(error)
    except TypeError:
        return error
    copied.__cause__ = error.__cause__
    return copied
