"""``/console/session``: the console's sign-in, whose refresh token stays out of scripts' reach.

The refresh token is a cookie that no script can read and that goes to these paths only; the access
token is in the response, and the console keeps it in memory. Everything else the console does, it
does as any other client of the API.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlsplit

import orjson
from quart_schema import hide
from werkzeug.http import parse_cookie

from catalog.auth.guards import public
from catalog.errors import CatalogError, Forbidden, TokenMissing, UnsupportedMediaType
from catalog.http.adapter import Routes
from catalog.http.context import settings
from catalog.http.replies.negotiation import JSON
from catalog.http.replies.reply import Reply, json_reply, no_content
from catalog.http.request import current_request
from catalog.http.validation import accepted
from catalog.ui.api_call import call_view

PATH = "/console/session"

COOKIE = "catalog_refresh"

View = Callable[[], Awaitable[Reply]]

blueprint = Routes("console_session", __name__, url_prefix=PATH)


def from_this_origin(view: View) -> View:
    """Refuse requests that a page of another origin has a browser send.

    The cookie is ``SameSite=Strict``, which still lets pages on other ports of the host in. Fetch
    metadata tells these apart; browsers send it over HTTPS and to localhost. Elsewhere the host of
    ``Origin`` is compared, and the media type makes a browser ask before it sends anything.

    Raises:
        Forbidden: another origin's page sent the request, or no browser did.
        UnsupportedMediaType: the body is not declared as JSON.
    """

    @wraps(view)
    async def guarded() -> Reply:
        request = current_request()
        site, origin = request.header("sec-fetch-site"), request.header("origin")
        if site:
            is_ours = site == "same-origin"
        else:
            # Without the port, which proxies drop from Host.
            host = _host_of(origin)
            is_ours = bool(host) and host == _host_of(f"//{request.header('host')}")
        if not is_ours:
            raise Forbidden("Only the console's own pages may do this; use /api/auth instead.")
        if request.content_type[0] != JSON:
            raise UnsupportedMediaType(
                "The body must be application/json.", headers=accepted(request.method, [JSON])
            )
        return await view()

    return guarded


def _host_of(url: str) -> str | None:
    """Return the host's name in a URL that a client sent; None if there is none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


@blueprint.post("")
@public
@hide
@from_this_origin
async def log_in_to_console() -> Reply:
    """Log in as ``POST /api/auth/login`` does; the refresh token becomes a cookie."""
    return await _with_cookie("sign_in.log_in")


@blueprint.post("/account")
@public
@hide
@from_this_origin
async def sign_up_to_console() -> Reply:
    """Sign up as ``POST /api/auth/signup`` does; the refresh token becomes a cookie."""
    return await _with_cookie("sign_in.sign_up")


@blueprint.post("/refresh")
@public
@hide
@from_this_origin
async def refresh_console() -> Reply:
    """Return a new access token and its account for the cookie.

    Raises:
        TokenMissing: there is no cookie.
    """
    try:
        token = _refresh_token()
        refreshed = await _called("sign_in.refresh_token", method="POST", body=b"{}", token=token)
        access_token = refreshed["access_token"]
        user = await _called("account.read_account", token=access_token)
    except CatalogError as error:
        if error.status == TokenMissing.status:
            # The session has ended, so the cookie, if there is one, is of no more use.
            error.headers["Set-Cookie"] = _cookie("", max_age=0)
        raise
    return json_reply(orjson.dumps({"access_token": access_token, "user": user}))


@blueprint.delete("")
@public
@hide
@from_this_origin
async def log_out_of_console() -> Reply:
    """End the cookie's session, and delete the cookie."""
    await call_view("sign_in.log_out", method="POST", token=_refresh_token())
    return no_content({"Set-Cookie": _cookie("", max_age=0)})


async def _with_cookie(endpoint: str) -> Reply:
    signed_in = await _called(endpoint, method="POST", body=await current_request().decoded_body())
    refresh_token = signed_in.pop("refresh_token")
    lifetime = int(settings().refresh_token_ttl.total_seconds())
    access_token = signed_in.pop("access_token")
    # A sign-up's reply is the account itself, with the tokens.
    user = signed_in.get("user", signed_in)
    return json_reply(
        orjson.dumps({"access_token": access_token, "user": user}),
        headers={"Set-Cookie": _cookie(refresh_token, max_age=lifetime)},
    )


async def _called(endpoint: str, **options: Any) -> dict[str, Any]:
    reply = await call_view(endpoint, **options)
    answer: dict[str, Any] = orjson.loads(reply.body)  # type: ignore[arg-type]  # it is whole
    return answer


def _refresh_token() -> str:
    """Return the cookie's refresh token.

    Raises:
        TokenMissing: there is none.
    """
    token = parse_cookie("; ".join(current_request().header_values("cookie"))).get(COOKIE)
    if not token or not token.isascii():
        raise TokenMissing
    return token


def _cookie(value: str, *, max_age: int) -> str:
    """Return the value of ``Set-Cookie`` (RFC 6265, section 4.1)."""
    request = current_request()
    cookie: SimpleCookie = SimpleCookie({COOKIE: value})
    morsel = cookie[COOKIE]
    morsel["path"] = request.prefix + PATH
    morsel["max-age"] = max_age
    morsel["httponly"] = True
    morsel["samesite"] = "Strict"
    morsel["secure"] = request.scope["scheme"] == "https"
    return morsel.OutputString()
