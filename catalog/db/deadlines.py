"""Time limits of the database that are alike in every deployment."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Time limits in seconds.

    Attributes:
        checkout: for a wait for a free connection; beyond it the response is 503. Waiting longer
            would only lengthen the queue of a database that is too slow already.
        connect: for a new connection, TLS and authentication included. Shorter than ``write``, so
            that a write whose connection cannot be opened still gets an answer of its own.
        write: for a transaction, with waits and retries. Twice the longest lock wait, and far less
            than the 40 s for which nginx waits for a response.
    """

    checkout: float = 1.0
    connect: float = 3.0
    write: float = 5.0


DEADLINES = Deadlines()
