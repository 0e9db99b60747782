"""SQLAlchemy engines configured per purpose, on SQLite, MySQL and MariaDB."""

from catalog.db.engines.factory import create_engine
from catalog.db.engines.pool import dispose_of
from catalog.db.engines.purpose import Purpose
from catalog.db.engines.sqlite import DriverThreads

__all__ = ["DriverThreads", "Purpose", "create_engine", "dispose_of"]
