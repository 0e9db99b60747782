"""Log of background tasks: one line per outage and one at its end."""

from catalog.errors import CatalogError
from catalog.observability.logs import logger

_log = logger(__name__)


class TaskLog:
    """Observer of a background task that logs its failures.

    Args:
        name: name under which they are logged.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        # Kinds of failure since the last successful run.
        self._failures: set[type[Exception]] = set()

    def failed(self, error: Exception) -> None:
        """Log a failure that is new."""
        if isinstance(error, CatalogError):
            # One line per outage, however long it lasts.
            if not self._failures:
                cause = error.__cause__
                _log.warning(
                    "task_degraded", task=self._name, code=error.slug, cause=repr(cause or error)
                )
        elif type(error) not in self._failures:
            # A traceback at every run, up to twice a second, would bury all other lines.
            _log.error("task_crashed", task=self._name, exc_info=error)
        self._failures.add(type(error))

    def succeeded(self) -> None:
        """Log the end of an outage."""
        if self._failures:
            _log.info("task_recovered", task=self._name)
        self._failures.clear()
