"""Former settings that are constants now.

A deployment that still sets one relies on a value that no longer holds, so it must not start.
"""

import os

REMOVED = {
    "CATALOG_BODY_TIMEOUT": "10 seconds",
    "CATALOG_DATABASE_CONNECT_TIMEOUT": "3 seconds",
    "CATALOG_DATABASE_POOL_TIMEOUT": "1 second",
    "CATALOG_DATABASE_START_TIMEOUT": "120 seconds",
    "CATALOG_DATABASE_TIMEOUT": "5 seconds",
    "CATALOG_GRACEFUL_TIMEOUT": "25 seconds",
    "CATALOG_IDEMPOTENCY_RETENTION": "86400 seconds",
    "CATALOG_MAX_BODY_BYTES": "262144 bytes",
    "CATALOG_MAX_REQUESTS": "1024 for each worker",
    "CATALOG_PASSWORD_PASSES": "2",
    "CATALOG_PASSWORD_QUEUE": "64 for each worker",
    "CATALOG_RESPONSE_BUFFER_BYTES": "25165824 bytes for each worker",
    "CATALOG_RESPONSE_TIMEOUT": "8 seconds",
    "CATALOG_REVOCATION_INTERVAL": "0.5 seconds",
    "CATALOG_SESSIONS_PER_ACCOUNT": "100",
}
"""The value that always holds now, by variable."""


def removed_variables() -> list[str]:
    """Return a line for each former setting that is set; an empty one counts as not set."""
    return [
        f"{name} is no longer a setting: it is {value} always"
        for name, value in REMOVED.items()
        if os.environ.get(name)
    ]
