"""Settings: typed, read once from the environment and frozen.

Variables are ``DATABASE_URL``, ``JWT_SECRET_KEY``, ``ADMIN_*`` and, for all else, ``CATALOG_*``. A
secret may come from a file instead, named by the same variable with the suffix ``_FILE``, as
container platforms mount them.
"""

from catalog.settings.process_environment import (
    SharedMetrics,
    build_commit,
    environment_of_worker,
    shared_metrics,
)
from catalog.settings.public_address import is_root_path
from catalog.settings.removed import CONSTANTS, REMOVED, removed_variables
from catalog.settings.settings import (
    Settings,
    load_settings,
    unknown_variables,
    usable_cores,
    variable_names,
)
from catalog.settings.sources import SECRET_FIELDS
from catalog.settings.values import (
    KNOWN_SECRETS,
    MIN_SECRET_BYTES,
    Bind,
    Rate,
    parse_database_url,
)

__all__ = [
    "CONSTANTS",
    "KNOWN_SECRETS",
    "MIN_SECRET_BYTES",
    "REMOVED",
    "SECRET_FIELDS",
    "Bind",
    "Rate",
    "Settings",
    "SharedMetrics",
    "build_commit",
    "environment_of_worker",
    "is_root_path",
    "load_settings",
    "parse_database_url",
    "removed_variables",
    "shared_metrics",
    "unknown_variables",
    "usable_cores",
    "variable_names",
]
