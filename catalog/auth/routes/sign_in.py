"""``/api/auth``: sign up, log in, refresh, log out."""

from contextlib import suppress

from quart_schema import document_response, tag_blueprint

from catalog.auth import accounts, service
from catalog.auth.accounts import Account
from catalog.auth.audit import Audit, record
from catalog.auth.context import auth
from catalog.auth.guards import (
    any_token_required,
    caller,
    public,
    refresh_token_required,
    session_required,
    tokens,
)
from catalog.auth.routes.attempts import recording, verified
from catalog.auth.routes.deadline import one_deadline
from catalog.auth.schemas import (
    LogIn,
    Refreshed,
    RefreshOptions,
    SignedIn,
    SignedUp,
    SignUp,
    UserRead,
)
from catalog.auth.tokens import sessions
from catalog.auth.tokens.jwt import Bearer, issue_access_token, issue_refresh_token
from catalog.auth.tokens.session_state import Resumed
from catalog.auth.tokens.sessions import (
    SESSION_FACTOR,
    SessionLifetimes,
    SessionRequest,
    TokenGrant,
)
from catalog.errors import (
    AccountUnavailable,
    DuplicateValue,
    LoginThrottled,
    Overloaded,
    TokenReused,
    Unavailable,
    WrongCredentials,
)
from catalog.http.adapter import Routes
from catalog.http.context import client_address, database, settings
from catalog.http.limits import client_network, limited
from catalog.http.openapi import answers_nothing, may_lack_body, refuses
from catalog.http.replies.reply import Reply, json_reply, no_content
from catalog.http.request import current_request
from catalog.http.validation import json_body

blueprint = Routes("sign_in", __name__, url_prefix="/api/auth")
tag_blueprint(blueprint, ["auth"])


@blueprint.post("/signup")
@limited("signup")
@public
@one_deadline
@refuses(DuplicateValue, Overloaded)
@json_body(SignUp)
@document_response(SignedUp, 201)
async def sign_up(data: SignUp) -> Reply:
    """Make an account and sign in.

    The response has the tokens of the first session. A username or e-mail address that is taken is
    409, and `errors` points to it.
    """
    service.check_new_password(
        data.password,
        min_length=settings().password_min_length,
        refuse_guessable=settings().refuse_guessable_passwords,
        username=data.username,
        email=data.email,
    )
    user, grant = await database().transaction(
        service.sign_up_and_in,
        username=data.username,
        email=data.email,
        password_hash=await auth().passwords.hash(data.password),
        session_request=_session_request(),
    )
    record(Audit.SIGNED_UP, user_id=user.id, session_id=grant.session_id)
    access_token, refresh_token = await _tokens_of(grant)
    signed_up = SignedUp(
        id=user.id,
        username=user.username,
        email=user.email,
        access_token=access_token,
        refresh_token=refresh_token,
    )
    return json_reply(signed_up, status=201)


@blueprint.post("/login")
@limited("login")
@public
@one_deadline
@refuses(WrongCredentials, LoginThrottled, Overloaded)
@json_body(LogIn)
@document_response(SignedIn)
async def log_in(data: LogIn) -> Reply:
    """Sign in with a username or an e-mail address.

    Begins a session. An unknown name and a wrong password get the same response after the same
    time; after ten failures, log-ins for the account are throttled.
    """
    grant = None
    while grant is None:
        async with database().connection() as connection:
            attempt = await service.find_attempt(
                connection, login=data.username, network=client_network()
            )
        with recording(attempt, failed=Audit.SIGN_IN_FAILED, blocked=Audit.SIGN_IN_BLOCKED):
            account = await verified(attempt, data.password)
            grant = await database().transaction(
                service.log_in,
                account=account,
                subject=attempt.subject,
                session_request=_session_request(),
            )
    record(Audit.SIGNED_IN, user_id=account.id, session_id=grant.session_id)
    await _keep_current(account, data.password)
    access_token, refresh_token = await _tokens_of(grant)
    user = UserRead(
        id=account.id, username=account.username, email=account.email, role=grant.role.value
    )
    return json_reply(SignedIn(access_token=access_token, refresh_token=refresh_token, user=user))


async def _keep_current(account: Account, password: str) -> None:
    """Rehash a password whose hash is weaker than the current settings ask for.

    Runs last, so that the time of a refusal does not reveal that a password was right.
    """
    passwords = auth().passwords
    if not passwords.is_outdated(account.password_hash):
        return
    # If the queue is full or the database is unavailable, the next log-in rehashes.
    with suppress(Unavailable):
        new_hash = await passwords.hash(password)
        if await database().transaction(
            accounts.replace_hash,
            user_id=account.id,
            old_hash=account.password_hash,
            new_hash=new_hash,
        ):
            record(Audit.PASSWORD_REHASHED, user_id=account.id)


@blueprint.post("/refresh")
@limited("refresh")
@refresh_token_required
@one_deadline
@refuses(TokenReused, AccountUnavailable)
@may_lack_body
@json_body(RefreshOptions, optional=True)
@document_response(Refreshed)
async def refresh_token(data: RefreshOptions) -> Reply:
    """Get a new access token for a refresh token, and a new refresh token with `rotate`.

    Needs the refresh token in `Authorization: Bearer`. With `rotate`, the refresh token is replaced
    too; a replaced one that is used again later ends the session.
    """
    bearer = caller()
    try:
        if data.rotate:
            return await _rotated(bearer)
        resumed = await auth().sessions.resume(bearer)
    except TokenReused:
        await _end_stolen(bearer)
        raise
    if resumed.is_due:
        # Refreshing must still work while the database accepts reads but no writes.
        with suppress(Unavailable):
            await database().transaction(sessions.touch, session_id=bearer.session_id)
    return _resumed(bearer, resumed)


def _resumed(bearer: Bearer, resumed: Resumed) -> Reply:
    # Not by the library's function: it needs the app's context, which costs as much as signing.
    access_token = tokens().access_token(
        bearer.user_id,
        session_id=bearer.session_id,
        role=resumed.role,
        session_expires_at=resumed.expires_at,
    )
    return _refreshed(Refreshed(access_token=access_token))


async def _rotated(bearer: Bearer) -> Reply:
    grant = await database().transaction(
        sessions.rotate,
        bearer=bearer,
        lifetimes=_lifetimes(),
    )
    record(Audit.TOKEN_ROTATED, user_id=bearer.user_id, session_id=bearer.session_id)
    access_token, refresh_token = await _tokens_of(grant)
    return _refreshed(Refreshed(access_token=access_token, refresh_token=refresh_token))


async def _end_stolen(bearer: Bearer) -> None:
    # In a separate transaction, which the refusal does not roll back.
    await database().transaction(sessions.end, session_id=bearer.session_id)
    auth().revocations.add([bearer.session_id])
    record(Audit.TOKEN_REUSED, user_id=bearer.user_id, session_id=bearer.session_id, ended=True)


@blueprint.get("/refresh")
@limited("refresh")
@refresh_token_required
@one_deadline
@refuses(TokenReused, AccountUnavailable)
@document_response(Refreshed)
async def get_refreshed_token() -> Reply:
    """Get a new access token for a refresh token, as older clients ask for it.

    Needs the refresh token in `Authorization: Bearer`, and changes nothing. New clients use `POST`.
    """
    bearer = caller()
    try:
        resumed = await auth().sessions.resume(bearer)
    except TokenReused:
        # A GET must not change anything, so the session stays live.
        record(
            Audit.TOKEN_REUSED, user_id=bearer.user_id, session_id=bearer.session_id, ended=False
        )
        raise
    return _resumed(bearer, resumed)


def _refreshed(refreshed: Refreshed) -> Reply:
    return json_reply(refreshed.model_dump_json(exclude_none=True).encode())


@blueprint.post("/logout")
@any_token_required
@one_deadline
@answers_nothing
async def log_out() -> Reply:
    """End the session that a token of either kind belongs to.

    Its tokens are refused from then on, within 2 seconds by every process. Repeating it is 204,
    too.
    """
    bearer = caller()
    await database().transaction(sessions.end, session_id=bearer.session_id)
    auth().revocations.add([bearer.session_id])
    record(Audit.SIGNED_OUT, user_id=bearer.user_id, session_id=bearer.session_id)
    return no_content()


@blueprint.post("/logout-all")
@session_required
@one_deadline
@answers_nothing
async def log_out_everywhere() -> Reply:
    """End all of your sessions.

    That of this request as well; to keep it, end the others one by one, or change the password.
    """
    bearer = caller()
    ended = await database().transaction(sessions.end_all, user_id=bearer.user_id)
    auth().revocations.add([bearer.session_id, *ended])
    record(Audit.SESSIONS_ENDED, user_id=bearer.user_id, count=len(ended))
    return no_content()


def _lifetimes() -> SessionLifetimes:
    refresh = settings().refresh_token_ttl
    return SessionLifetimes(refresh=refresh, session=SESSION_FACTOR * refresh)


def _session_request() -> SessionRequest:
    return SessionRequest(
        address=client_address(),
        agent=current_request().header("user-agent"),
        lifetimes=_lifetimes(),
    )


async def _tokens_of(grant: TokenGrant) -> tuple[str, str]:
    async with current_request().app.app_context():
        access_token = issue_access_token(
            grant.user_id,
            session_id=grant.session_id,
            role=grant.role,
            session_expires_at=grant.expires_at,
        )
        refresh_token = issue_refresh_token(
            grant.user_id,
            session_id=grant.session_id,
            token_id=grant.token_id,
            issued_at=grant.issued_at,
            expires_at=grant.expires_at,
        )
    return access_token, refresh_token
