"""``/api/auth``: sign up, log in, refresh."""

from quart import Blueprint, Response, current_app, request
from quart_schema import document_response, tag_blueprint, validate_request

from catalog.auth import service
from catalog.auth.guards import caller_id, public, refreshing
from catalog.auth.passwords import Passwords
from catalog.auth.schemas import (
    LogIn,
    Refreshed,
    RefreshOptions,
    SignedIn,
    SignedUp,
    SignUp,
    UserRead,
)
from catalog.auth.tokens import issue_access_token, issue_refresh_token
from catalog.errors import (
    AccountUnavailable,
    InvalidRequest,
    Overloaded,
    Taken,
    UnsupportedMediaType,
    WrongCredentials,
)
from catalog.http.bodies import json_if_any
from catalog.http.context import database, settings
from catalog.http.openapi import refuses
from catalog.http.rendering import json_response

blueprint = Blueprint("auth", __name__, url_prefix="/api/auth")
tag_blueprint(blueprint, ["auth"])

PASSWORDS = "catalog.passwords"
"""Where the app keeps its ``Passwords``."""


def passwords() -> Passwords:
    """The password threads of the app handling this request."""
    held: Passwords = current_app.extensions[PASSWORDS]
    return held


@blueprint.post("/signup")
@public
@refuses(Taken, Overloaded)
@validate_request(SignUp)
@document_response(SignedUp, 201)
async def sign_up(data: SignUp) -> Response:
    """Make an account and sign in."""
    service.check_password(data.password, min_length=settings().password_min_length)
    user = await database().transaction(
        service.sign_up,
        username=data.username,
        email=data.email,
        password_hash=await passwords().hash(data.password),
    )
    signed_up = SignedUp(
        id=user.id,
        username=user.username,
        email=user.email,
        access_token=issue_access_token(user.id),
        refresh_token=issue_refresh_token(user.id),
    )
    return json_response(signed_up, status=201)


@blueprint.post("/login")
@public
@refuses(WrongCredentials, Overloaded)
@validate_request(LogIn)
@document_response(SignedIn)
async def log_in(data: LogIn) -> Response:
    """Sign in with a username or an e-mail address."""
    account = await database().reading(service.find_account, login=data.username)
    user = await service.log_in(account, password=data.password, passwords=passwords())
    signed_in = SignedIn(
        access_token=issue_access_token(user.id),
        refresh_token=issue_refresh_token(user.id),
        user=UserRead(id=user.id, username=user.username, email=user.email, role=user.role),
    )
    return json_response(signed_in)


@blueprint.post("/refresh")
@refreshing
@refuses(AccountUnavailable, UnsupportedMediaType, InvalidRequest)
@document_response(Refreshed)
async def refresh_token() -> Response:
    """Get a new access token for a refresh token."""
    await json_if_any(request, RefreshOptions)
    return await _refreshed()


@blueprint.get("/refresh")
@refreshing
@refuses(AccountUnavailable)
@document_response(Refreshed)
async def get_refreshed_token() -> Response:
    """Get a new access token for a refresh token, as older clients ask for it."""
    return await _refreshed()


async def _refreshed() -> Response:
    await database().reading(service.require_account, user_id=caller_id())
    return json_response(Refreshed(access_token=issue_access_token(caller_id())))
