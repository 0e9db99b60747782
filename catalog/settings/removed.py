"""Former settings that are constants now.

A deployment that still sets one relies on a value that no longer holds, so it must not start.
"""

import os
from collections.abc import Mapping

CONSTANTS = {
    "CATALOG_BODY_TIMEOUT": "10 seconds",
    "CATALOG_CHANGE_RETENTION": "2592000 seconds",
    "CATALOG_DATABASE_CONNECT_TIMEOUT": "3 seconds",
    "CATALOG_DATABASE_POOL_TIMEOUT": "1 second",
    "CATALOG_DATABASE_READ_TIMEOUT": "2 seconds",
    "CATALOG_DATABASE_START_TIMEOUT": "120 seconds",
    "CATALOG_DATABASE_TIMEOUT": "5 seconds",
    "CATALOG_GRACEFUL_TIMEOUT": "25 seconds",
    "CATALOG_IDEMPOTENCY_RETENTION": "86400 seconds",
    "CATALOG_MAX_BODY_BYTES": "262144 bytes",
    "CATALOG_MAX_REQUESTS": "512 reads and 768 writes for each worker",
    "CATALOG_PASSWORD_PASSES": "2",
    "CATALOG_PASSWORD_QUEUE": "64 for each worker",
    "CATALOG_REFRESH_LIMIT": "6000 per minute",
    "CATALOG_RESPONSE_BUFFER_BYTES": "25165824 bytes for each worker",
    "CATALOG_RESPONSE_TIMEOUT": "8 seconds",
    "CATALOG_REVOCATION_INTERVAL": "0.5 seconds",
    "CATALOG_SESSIONS_PER_ACCOUNT": "100",
    "CATALOG_SESSION_TTL": "3 times CATALOG_REFRESH_TOKEN_TTL",
}
"""The value that always holds now, by variable."""

REPLACED = {
    "CATALOG_DATABASE_TLS_CA": "set CATALOG_DATABASE_TLS to the path of the file",
    "CATALOG_LOG_FORMAT": "the log is JSON, and for reading on a terminal",
}
"""The present rule, by variable."""

REMOVED = {
    **{name: f"it is {value} always" for name, value in CONSTANTS.items()},
    **REPLACED,
}
"""The end of the line that refuses a former setting, by variable."""


def removed_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return a line for each former setting that is set; an empty one counts as not set."""
    return [
        f"{name} is no longer a setting: {what_holds}"
        for name, what_holds in REMOVED.items()
        if environment.get(name, "").strip()
    ]
