"""Protocol between a worker and its supervisor: status messages and time-outs."""

from typing import Final

from catalog.settings import Settings

# A worker writes JSON strings to its status pipe, one per line: one of these words or, instead of
# ready, the reason why it cannot serve, for the operator.
READY: Final = "ready"
"""The worker accepts connections."""
LEAVING: Final = "leaving"
"""The worker will soon stop accepting connections: its slot needs another one."""

GOODBYE_SECONDS: Final = 1.0
"""Time for clients with an open connection to send another request and be told that it closes."""

LAST_STEPS_SECONDS: Final = 3.0
"""Time for the application to close its pools after the last response."""


def start_limit(settings: Settings) -> float:
    """Return the seconds after which a worker that is not ready has failed to start."""
    return settings.database_start_timeout + 60


def stop_limit(settings: Settings) -> float:
    """Return the seconds after which a worker that was told to stop is killed."""
    draining = max(settings.drain_delay, GOODBYE_SECONDS)
    return draining + settings.graceful_timeout + LAST_STEPS_SECONDS + 2
