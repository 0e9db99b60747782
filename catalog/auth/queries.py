"""SELECT statements of sign-in and of sessions, built once at import.

Building a statement costs as much as running it, and plain columns cost half as much as ORM
attributes.
"""

from sqlalchemy import Integer, String, bindparam, select
from sqlalchemy.sql.functions import count

from catalog.auth.models import ApiKey, LoginSession, SupersededToken, User, WrongGuesses
from catalog.db.columns import Id, database_now

_users = User.__table__
_sessions = LoginSession.__table__
_superseded = SupersededToken.__table__
_guesses = WrongGuesses.__table__
_keys = ApiKey.__table__

_user_id = bindparam("user_id", type_=Id)
_now = database_now().label("now")

ACCOUNT_FIELDS = ("id", "username", "email", "role", "disabled", "password_hash")
"""Columns of an account that sign-in needs."""

_account = select(*(_users.c[field] for field in ACCOUNT_FIELDS))

ACCOUNT_BY_ID = _account.where(_users.c.id == _user_id)
"""Takes ``user_id``."""

ACCOUNT_BY_USERNAME = _account.where(_users.c.username_key == bindparam("key", type_=String))
"""Takes ``key``, folded."""

ACCOUNT_BY_EMAIL = _account.where(_users.c.email_key == bindparam("key", type_=String))
"""Takes ``key``, folded."""

RIGHTS = select(_users.c.role, _users.c.disabled).where(_users.c.id == _user_id)
"""Role and disabled flag of an account; takes ``user_id``."""

USABLE = select(_users.c.id, _users.c.role).where(
    _users.c.id.in_(bindparam("user_ids", type_=Id, expanding=True)), _users.c.disabled.is_(False)
)
"""Ids and roles of those accounts that exist and are not disabled; takes ``user_ids``."""

_times = (
    select(_guesses.c.times)
    .where(_guesses.c.subject == bindparam("subject", type_=String))
    .scalar_subquery()
    .label("times")
)

WRONG_PASSWORD_TIMES = select(_times, _now)
"""Times of wrong passwords, null for none, and the current time; takes ``subject``."""

LOCKED_ACCOUNT = (
    select(_users.c.disabled, _users.c.password_hash, _users.c.role, _times, _now)
    .where(_users.c.id == _user_id)
    .with_for_update(of=_users)
)
"""An account, locked until the transaction ends, and the times of wrong passwords for it.

Takes ``user_id`` and ``subject``.
"""

LIVE_SESSIONS = select(_sessions.c.id).where(
    _sessions.c.user_id == _user_id,
    _sessions.c.revoked_at.is_(None),
    _sessions.c.expires_at > database_now(),
)
"""Ids of an account's live sessions, neither ended nor expired; takes ``user_id``."""

LIVE_SESSION_COUNT = select(
    LIVE_SESSIONS.with_only_columns(count()).scalar_subquery().label("live"), _now
)
"""Number of an account's live sessions, and the current time; takes ``user_id``."""

SURPLUS_SESSIONS = LIVE_SESSIONS.order_by(_sessions.c.last_used_at, _sessions.c.id).limit(
    bindparam("surplus", type_=Integer)
)
"""Ids of the ``surplus`` least recently used live sessions; takes ``user_id`` and ``surplus``."""

LIVE_SESSION_LIST = LIVE_SESSIONS.with_only_columns(
    *(
        _sessions.c[column]
        for column in ("id", "created_at", "last_used_at", "expires_at", "address", "agent")
    )
).order_by(_sessions.c.last_used_at.desc(), _sessions.c.id.desc())
"""An account's live sessions as displayed, most recently used first; takes ``user_id``."""

_session_state = (
    *(_sessions.c.user_id, _sessions.c.refresh_hash, _sessions.c.created_at),
    *(_sessions.c.last_used_at, _sessions.c.expires_at, _sessions.c.revoked_at),
    *(_users.c.role, _users.c.disabled, _now),
)

_session_of_account = _sessions.outerjoin(_users, _users.c.id == _sessions.c.user_id)

SESSION_STATE = (
    select(
        *_session_state,
        select(_superseded.c.superseded_at)
        .where(_superseded.c.token_hash == bindparam("token_hash", type_=String))
        .scalar_subquery()
        .label("superseded_at"),
    )
    .select_from(_session_of_account)
    .where(_sessions.c.id == bindparam("session_id", type_=Id))
)
"""A session, its account and one of its tokens; takes ``session_id`` and ``token_hash``."""

SESSION_STATES = (
    select(_sessions.c.id, *_session_state)
    .select_from(_session_of_account)
    .where(_sessions.c.id.in_(bindparam("session_ids", type_=Id, expanding=True)))
)
"""Sessions by their ids, and their accounts; takes ``session_ids``."""

SUPERSEDED = select(_superseded.c.token_hash, _superseded.c.superseded_at).where(
    _superseded.c.token_hash.in_(bindparam("hashes", type_=String, expanding=True))
)
"""Times at which tokens were superseded, of those that were; takes ``hashes``."""

LIVE_KEYS = select(
    *(
        _keys.c[column]
        for column in ("id", "name", "prefix", "scope", "created_at", "last_used_at", "expires_at")
    )
).where(
    _keys.c.user_id == _user_id,
    _keys.c.revoked_at.is_(None),
    _keys.c.expires_at.is_(None) | (_keys.c.expires_at > database_now()),
)
"""An account's API keys, neither revoked nor expired, as displayed; takes ``user_id``."""

LIVE_KEY_COUNT = select(LIVE_KEYS.with_only_columns(count()).scalar_subquery().label("live"), _now)
"""Number of an account's live API keys, and the current time; takes ``user_id``."""

LOCKED_RIGHTS = RIGHTS.with_for_update()
"""As ``RIGHTS``, locked until the transaction ends."""

KEYS_BY_HASH = (
    select(
        _keys.c.key_hash,
        _keys.c.id,
        _keys.c.user_id,
        _keys.c.scope,
        _keys.c.expires_at,
        _keys.c.last_used_at,
        _now,
    )
    .join_from(_keys, _users, _users.c.id == _keys.c.user_id)
    .where(
        _keys.c.key_hash.in_(bindparam("hashes", type_=String, expanding=True)),
        _keys.c.revoked_at.is_(None),
        _users.c.disabled.is_(False),
    )
)
"""API keys that were not revoked, of usable accounts; takes ``hashes``."""
