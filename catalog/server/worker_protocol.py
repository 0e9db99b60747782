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

GRACEFUL_SECONDS: Final = 25.0
"""Time for requests in flight to finish when the service stops.

Docker, Kubernetes and systemd can be told to wait longer than this:
docs/deployment/starting_and_stopping.md says how long.
"""

START_LIMIT_SECONDS: Final = 180.0
"""Time after which a worker that is not ready has failed to start.

The sum of what it may wait for: two minutes for the database, and one for another instance's
migrations.
"""

LAST_STEPS_SECONDS: Final = 3.0
"""Time for the application to close its pools after the last response."""


def stop_limit(settings: Settings) -> float:
    """Return the seconds after which a worker that was told to stop is killed."""
    draining = max(settings.drain_delay, GOODBYE_SECONDS)
    return draining + GRACEFUL_SECONDS + LAST_STEPS_SECONDS + 2
