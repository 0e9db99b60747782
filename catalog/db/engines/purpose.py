"""Purposes of a connection, and the deadline of a statement for each."""

from enum import Enum

from catalog.db.deadlines import Deadlines


class Purpose(Enum):
    """Purpose of an engine's connections."""

    READING = "reading"
    WRITING = "writing"
    PROBING = "probing"
    WATCHING = "watching"
    MIGRATING = "migrating"

    @property
    def is_read_only(self) -> bool:
        """Whether the connections reject writes."""
        return self in {Purpose.READING, Purpose.PROBING, Purpose.WATCHING}

    @property
    def is_pooled(self) -> bool:
        """Whether there are as many connections as the setting says, instead of one."""
        return self in {Purpose.READING, Purpose.WRITING}


def time_limit(purpose: Purpose, deadlines: Deadlines) -> float:
    """Return the deadline of a statement, in seconds."""
    return deadlines.read if purpose is Purpose.READING else deadlines.write
