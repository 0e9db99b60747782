"""Errors of products' queues and limits, counted as rejections."""

from collections.abc import Callable

from catalog.db.error_translation import did_not_answer, waited_too_long
from catalog.errors import DatabaseBusy, IdempotencyKeyInUse, Overloaded, Unavailable
from catalog.observability.metrics import Shed, count_rejection


class WriteRefusals:
    """Errors of writes that group commit does not do."""

    def full(self) -> Exception:
        """Return 503 for a write that finds the queue full."""
        count_rejection("writes")
        return DatabaseBusy("Too many writes are waiting.")

    def expired(self) -> Exception:
        """Return 503 for a write that has waited too long for its batch."""
        count_rejection("writes")
        return waited_too_long()

    def timed_out(self) -> Exception:
        """Return 503 for a write whose deadline has passed."""
        return did_not_answer()

    def key_in_use(self) -> Exception:
        """Return 409 for a write whose idempotency key is in use."""
        return IdempotencyKeyInUse()

    def forbids_retry(self, error: Exception) -> bool:
        """Tell whether the database did not answer, or is too busy for one batch already."""
        return isinstance(error, Unavailable)


def page_expired() -> Exception:
    """Return 503 for a page that has waited too long for its round trip."""
    count_rejection("pages")
    return waited_too_long()


def too_many(detail: str, reason: Shed) -> Callable[[], Exception]:
    """Return what makes 503 for an operation beyond a limit.

    Args:
        detail: of the error.
        reason: label under which rejections are counted.
    """

    def refuse() -> Exception:
        count_rejection(reason)
        return Overloaded(detail)

    return refuse
