"""``/api/users``: all accounts, for administrators."""

from quart_schema import document_response, tag_blueprint

from catalog.auth import administration
from catalog.auth.audit import Audit, record
from catalog.auth.context import auth
from catalog.auth.guards import caller_id, for_admins
from catalog.auth.models import Role
from catalog.auth.routes.deadline import one_deadline
from catalog.auth.schemas import AccountRead, UserChange, UserPage
from catalog.errors import AccountUnavailable, Forbidden, LastAdmin
from catalog.http.adapter import Routes
from catalog.http.context import cursors, database
from catalog.http.openapi import answers_nothing, refuses
from catalog.http.pagination import Place
from catalog.http.replies.reply import Reply, json_reply, no_content
from catalog.http.request import current_request
from catalog.http.schemas import PageQuery
from catalog.http.validation import json_body, query_parameters

PATH = "/api/users"

blueprint = Routes("users", __name__, url_prefix=PATH)
tag_blueprint(blueprint, ["users"])


@blueprint.get("")
@for_admins
@one_deadline
@refuses(Forbidden)
@query_parameters(PageQuery)
@document_response(UserPage)
async def list_users(query_args: PageQuery) -> Reply:
    """List all accounts, the newest first.

    For administrators. Follow `next`, or send `next_cursor` as `cursor`, for the next page.
    """
    request = current_request()
    path = request.prefix + PATH
    place = Place(cursors(), query_args.cursor, path=path, bound_to=PATH)
    before_id = int(place.after[0]) if place.after else None
    async with database().connection() as connection:
        page = await administration.list_users(
            connection, limit=query_args.limit, before_id=before_id
        )
    cursor = place.next_cursor(page.last)
    next_url = place.next_url(cursor, request.query.items(multi=True))
    users = [AccountRead(**user) for user in page.users]
    return json_reply(UserPage(users=users, next=next_url, next_cursor=cursor))


@blueprint.get("/<id:user_id>")
@for_admins
@one_deadline
@refuses(Forbidden)
@document_response(AccountRead)
async def read_user(user_id: int) -> Reply:
    """Read an account.

    For administrators; `/api/auth/me` is the caller's own.
    """
    async with database().connection() as connection:
        user = await administration.read_user(connection, user_id=user_id)
    return json_reply(AccountRead(**user))


@blueprint.patch("/<id:user_id>")
@for_admins
@one_deadline
@refuses(AccountUnavailable, Forbidden, LastAdmin)
@json_body(UserChange)
@document_response(AccountRead)
async def change_user(user_id: int, data: UserChange) -> Reply:
    """Change what an account may do; a disabled one is signed out, its API keys are revoked.

    For administrators. The last enabled administrator can be neither demoted nor disabled: that is
    409.
    """
    change = await database().transaction(
        administration.change_user,
        user_id=user_id,
        caller_id=caller_id(),
        **data.model_dump(exclude_unset=True),
    )
    auth().revocations.add(change.ended.sessions)
    auth().revocations.add_keys(change.ended.keys)
    auth().revocations.set_role(user_id, Role(change.after["role"]))
    differences = {
        name: [change.before[name], change.after[name]]
        for name in ("role", "disabled")
        if change.before[name] != change.after[name]
    }
    if differences:
        record(Audit.ACCOUNT_CHANGED, user_id=user_id, by=caller_id(), **differences)
    return json_reply(AccountRead(**change.after))


@blueprint.delete("/<id:user_id>/sessions")
@for_admins
@one_deadline
@refuses(AccountUnavailable, Forbidden)
@answers_nothing
async def end_user_sessions(user_id: int) -> Reply:
    """Sign an account out everywhere.

    For administrators: all sessions of the account end, and it can log in again.
    """
    ended = await database().transaction(
        administration.end_sessions, user_id=user_id, caller_id=caller_id()
    )
    auth().revocations.add(ended)
    record(Audit.SESSIONS_ENDED, user_id=user_id, by=caller_id(), count=len(ended))
    return no_content()
