"""What a worker and its supervisor must agree on: the words between them, and their patience."""

from typing import Final

from catalog.settings import Settings

# A worker writes JSON strings into its status pipe, one a line: one of these words or, instead of
# ready, the sentence that tells the operator why it cannot serve.
READY: Final = "ready"
"""Connections are being accepted."""
LEAVING: Final = "leaving"
"""Connections will not be accepted much longer: the slot needs another worker."""

GOODBYE_SECONDS: Final = 1.0
"""How long clients with an open connection get to ask once more and be told that it closes."""

LAST_STEPS_SECONDS: Final = 3.0
"""How long the application gets to close its pools after the last answer."""


def start_limit(settings: Settings) -> float:
    """Seconds after which a worker that is not ready never will be."""
    return settings.database_start_timeout + 60


def stop_limit(settings: Settings) -> float:
    """Seconds after which a worker that was told to stop has broken its word."""
    draining = max(settings.drain_delay, GOODBYE_SECONDS)
    return draining + settings.graceful_timeout + LAST_STEPS_SECONDS + 2
