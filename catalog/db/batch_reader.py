"""Batch loader of reads: those that wait together share a connection, and mostly a round trip.

A request joins only a read that begins after it, so it sees every write acknowledged before.
"""

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeVar

from catalog.concurrency.batch_loader import BatchLoader
from catalog.db.database import Database
from catalog.db.error_translation import did_not_answer
from catalog.db.read_connection import ReadConnection

K = TypeVar("K", bound=Hashable)
A = TypeVar("A")
R = TypeVar("R")

MAX_BATCH = 64
"""Reads in one round trip; those of the longest products take the event loop some milliseconds."""

MAX_CONCURRENT_READS = 2
"""Concurrent round trips. Fewer and larger ones cost less, here and in the database: of 64 clients
with one round trip for each connection, a batch had two or three reads. The second goes on when the
connection of the first stalls."""

BatchReader = BatchLoader[K, K, ReadConnection, A, R]
"""Loader that reads the answers to keys, and converts each for all requests that share it."""


def batch_reader(
    database: Database,
    read: Callable[[ReadConnection, Sequence[K]], Awaitable[Sequence[A]]],
    convert: Callable[[K, A], R],
    *,
    max_concurrent_reads: int = MAX_CONCURRENT_READS,
    max_batch: int = MAX_BATCH,
) -> BatchReader[K, A, R]:
    """Return a loader on the connections of a database, with its deadlines.

    Its callers get DatabaseUnavailable or DatabaseBusy as those of ``Database.connection``.

    Args:
        database: the database.
        read: reads the answers to keys, in their order.
        convert: makes the value of a key's answer, or raises the error of its callers.
        max_concurrent_reads: largest number of concurrent reads, but not more than connections.
        max_batch: largest number of reads that share a connection at a time.
    """
    return BatchLoader(
        database.connection,
        read,
        convert,
        max_concurrent_reads=min(max_concurrent_reads, database.max_readers),
        max_batch=max_batch,
        wait_seconds=database.deadlines.checkout,
        expired=database.read_expired,
        deadline_seconds=database.deadlines.read,
        timed_out=did_not_answer,
    )
