"""Everything that can be set, typed, read once from the environment and frozen.

Names are ``DATABASE_URL``, ``JWT_SECRET_KEY``, ``ADMIN_*`` and, for all else, ``CATALOG_*``. A
secret may come from a file instead, named by the same variable with ``_FILE`` behind it, as
container platforms mount them.
"""

from catalog.settings.settings import (
    SECRET_FIELDS,
    Settings,
    load_settings,
    unknown_variables,
    usable_cores,
    variable_names,
)
from catalog.settings.values import (
    KNOWN_SECRETS,
    MIN_SECRET_BYTES,
    Bind,
    Rate,
    parse_database_url,
)

__all__ = [
    "KNOWN_SECRETS",
    "MIN_SECRET_BYTES",
    "SECRET_FIELDS",
    "Bind",
    "Rate",
    "Settings",
    "load_settings",
    "parse_database_url",
    "unknown_variables",
    "usable_cores",
    "variable_names",
]
