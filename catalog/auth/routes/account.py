"""``/api/auth``: the caller's account, its password and its sessions."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from quart_schema import document_response, tag_blueprint

from catalog.auth import accounts, service
from catalog.auth.accounts import Account
from catalog.auth.audit import Audit, record
from catalog.auth.context import auth
from catalog.auth.guards import caller, caller_id, session_required, signed_in
from catalog.auth.routes.attempts import recording, verified
from catalog.auth.routes.deadline import one_deadline
from catalog.auth.schemas import (
    AccountChange,
    AccountDeletion,
    AccountRead,
    PasswordChange,
    SessionList,
    SessionRead,
)
from catalog.auth.tokens import sessions
from catalog.errors import (
    AccountUnavailable,
    DuplicateValue,
    FieldError,
    LastAdmin,
    LoginThrottled,
    Overloaded,
    WrongCredentials,
    WrongPassword,
)
from catalog.http.adapter import Routes
from catalog.http.context import database, settings
from catalog.http.limits import client_network
from catalog.http.openapi import answers_nothing, refuses
from catalog.http.replies.reply import Reply, json_reply, no_content
from catalog.http.validation import json_body

blueprint = Routes("account", __name__, url_prefix="/api/auth")
tag_blueprint(blueprint, ["auth"])


@blueprint.get("/me")
@signed_in
@one_deadline
@refuses(AccountUnavailable)
@document_response(AccountRead)
async def read_account() -> Reply:
    """Read your account.

    Of the caller's access token: name, address, role, and when it was made.
    """
    return json_reply(AccountRead(**await auth().accounts.read(caller_id())))


@blueprint.patch("/me")
@session_required
@one_deadline
@refuses(AccountUnavailable, DuplicateValue)
@json_body(AccountChange)
@document_response(AccountRead)
async def change_account(data: AccountChange) -> Reply:
    """Change the e-mail address of your account.

    An address that another account has is 409; no mail is sent to the new one.
    """
    account = await database().transaction(
        accounts.change_email, user_id=caller_id(), email=data.email
    )
    record(Audit.EMAIL_CHANGED, user_id=caller_id())
    return json_reply(AccountRead(**account))


@blueprint.delete("/me")
@session_required
@one_deadline
@refuses(AccountUnavailable, WrongPassword, LastAdmin, LoginThrottled, Overloaded)
@json_body(AccountDeletion)
@answers_nothing
async def delete_account(data: AccountDeletion) -> Reply:
    """Delete your account and your products.

    Needs the password, so that a token alone deletes nothing. All sessions of the account end.
    """
    async with _confirmed(data.password, "/password") as (account, subject):
        ended = None
        # In transactions between which other writers get their turn.
        while ended is None:
            ended = await database().transaction(
                accounts.delete_account,
                subject=subject,
                account=account,
                on_account_delete=auth().on_account_delete,
            )
    auth().revocations.add(ended.sessions)
    auth().revocations.add_keys(ended.keys)
    record(Audit.ACCOUNT_DELETED, user_id=account.id)
    return no_content()


@blueprint.post("/password")
@session_required
@one_deadline
@refuses(AccountUnavailable, WrongPassword, LoginThrottled, Overloaded)
@json_body(PasswordChange)
@answers_nothing
async def change_password(data: PasswordChange) -> Reply:
    """Change your password and end your other sessions.

    Needs the current password; wrong ones count as at log-in.
    """
    async with _confirmed(data.current_password, "/current_password") as (account, subject):
        service.check_new_password(
            data.new_password,
            min_length=settings().password_min_length,
            refuse_guessable=settings().refuse_guessable_passwords,
            username=account.username,
            email=account.email,
            pointer="/new_password",
        )
        ended = await database().transaction(
            accounts.change_password,
            subject=subject,
            account=account,
            new_hash=await auth().passwords.hash(data.new_password),
            session_id=caller().session_id,
        )
    auth().revocations.add(ended)
    record(Audit.PASSWORD_CHANGED, user_id=account.id, sessions_ended=len(ended))
    return no_content()


@asynccontextmanager
async def _confirmed(password: str, pointer: str) -> AsyncIterator[tuple[Account, str]]:
    """Require the caller's password; a wrong one counts as at log-in.

    Yields:
        the caller's account, and the subject under which its wrong passwords are counted. The
        transaction must check the subject again: of many passwords checked concurrently, the
        right one must not pass after the limit is reached.

    Raises:
        AccountUnavailable, LoginThrottled, Overloaded, WrongPassword: not confirmed.
    """
    async with database().connection() as connection:
        attempt = await service.find_own_attempt(
            connection, user_id=caller_id(), network=client_network()
        )
    failed, blocked = Audit.PASSWORD_CHECK_FAILED, Audit.PASSWORD_CHECK_BLOCKED
    try:
        with recording(attempt, failed=failed, blocked=blocked):
            yield await verified(attempt, password), attempt.subject
    except (WrongCredentials, WrongPassword):
        rule = "is not the account's password"
        raise WrongPassword(errors=[FieldError("pointer", pointer, rule)]) from None


@blueprint.get("/sessions")
@session_required
@one_deadline
@document_response(SessionList)
async def list_sessions() -> Reply:
    """List your sessions, the last used one first.

    Each log-in and sign-up begins a session, which ends with a log-out or when its refresh token
    expires.
    """
    bearer = caller()
    async with database().connection() as connection:
        live = await sessions.list_live(connection, user_id=bearer.user_id)
    return json_reply(
        SessionList(
            sessions=[SessionRead(**each, current=each["id"] == bearer.session_id) for each in live]
        )
    )


@blueprint.delete("/sessions/<id:session_id>")
@session_required
@one_deadline
@answers_nothing
async def end_session(session_id: int) -> Reply:
    """End one of your sessions.

    Its tokens are refused from then on. One that has ended already, or is another's, is 404.
    """
    await database().transaction(sessions.end, session_id=session_id, user_id=caller_id())
    auth().revocations.add([session_id])
    record(Audit.SESSIONS_ENDED, user_id=caller_id(), session_id=session_id, count=1)
    return no_content()
