"""Audit log: one structured line for each sign-in, failed sign-in and change.

Lines hold ids and the client's address, never a submitted name, a token or a password: users
type passwords into the wrong field.
"""

from enum import StrEnum

from catalog.http.context import client_address
from catalog.observability.logs import audit_logger
from catalog.observability.metrics import LOGINS, REFRESH_REUSE

_log = audit_logger("catalog.audit")


class Audit(StrEnum):
    """Recorded events; documented in docs/security.md."""

    SIGNED_UP = "signed_up"
    SIGNED_IN = "signed_in"
    SIGN_IN_FAILED = "sign_in_failed"
    SIGN_IN_BLOCKED = "sign_in_blocked"
    TOKEN_ROTATED = "token_rotated"  # noqa: S105 (an event)
    TOKEN_REUSED = "token_reused"  # noqa: S105 (an event)
    SIGNED_OUT = "signed_out"
    SESSIONS_ENDED = "sessions_ended"
    PASSWORD_CHECK_FAILED = "password_check_failed"  # noqa: S105 (an event)
    PASSWORD_CHECK_BLOCKED = "password_check_blocked"  # noqa: S105 (an event)
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 (an event)
    PASSWORD_REHASHED = "password_rehashed"  # noqa: S105 (an event)
    EMAIL_CHANGED = "email_changed"
    ACCOUNT_DELETED = "account_deleted"
    ACCOUNT_CHANGED = "account_changed"
    KEY_CREATED = "key_created"
    KEY_REVOKED = "key_revoked"
    ACCESS_REFUSED = "access_refused"


_COUNTED = {
    Audit.SIGNED_IN: LOGINS.labels("succeeded"),
    Audit.SIGN_IN_FAILED: LOGINS.labels("failed"),
    Audit.SIGN_IN_BLOCKED: LOGINS.labels("throttled"),
    Audit.TOKEN_REUSED: REFRESH_REUSE,
}


def record(what: Audit, *, user_id: int | None, **details: object) -> None:
    """Write one line, which also carries the request id, and count events that have a metric.

    Args:
        what: the event.
        user_id: the affected account, or None if there is none.
        details: ids, roles, states and counts.
    """
    if what in _COUNTED:
        _COUNTED[what].inc()
    _log.info(what.value, user_id=user_id, client=client_address() or None, **details)
