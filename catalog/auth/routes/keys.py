"""``/api/auth/keys``: the API keys with which the caller's programs sign in."""

from quart_schema import document_response, tag_blueprint

from catalog.auth.audit import Audit, record
from catalog.auth.context import auth
from catalog.auth.guards import caller_id, session_required
from catalog.auth.models import Scope
from catalog.auth.routes.deadline import one_deadline
from catalog.auth.schemas import KeyCreate, KeyCreated, KeyList, KeyRead
from catalog.auth.tokens import api_keys
from catalog.errors import AccountUnavailable, TooManyApiKeys
from catalog.http.adapter import Routes
from catalog.http.context import database
from catalog.http.openapi import answers_nothing, refuses
from catalog.http.replies.reply import Reply, json_reply, no_content
from catalog.http.validation import json_body

PATH = "/api/auth/keys"

blueprint = Routes("keys", __name__, url_prefix=PATH)
tag_blueprint(blueprint, ["auth"])


@blueprint.post("")
@session_required
@one_deadline
@refuses(AccountUnavailable, TooManyApiKeys)
@json_body(KeyCreate)
@document_response(KeyCreated, 201)
async def create_key(data: KeyCreate) -> Reply:
    """Make an API key, which is shown only in this response.

    A program sends it as `Authorization: Bearer` in place of an access token. It reads, or reads
    and writes, your products, and does nothing else. An account may have 100 keys.
    """
    created = await database().transaction(
        api_keys.create,
        user_id=caller_id(),
        name=data.name,
        scope=Scope(data.scope),
        expires_at=data.expires_at,
    )
    record(Audit.KEY_CREATED, user_id=caller_id(), key_id=created.row["id"], scope=data.scope.value)
    return json_reply(KeyCreated(**created.row, key=created.text), status=201)


@blueprint.get("")
@session_required
@one_deadline
@document_response(KeyList)
async def list_keys() -> Reply:
    """List your API keys, newest first.

    Those that can still be used, without the keys themselves.
    """
    async with database().connection() as connection:
        live = await api_keys.list_live(connection, user_id=caller_id())
    return json_reply(KeyList(keys=[KeyRead(**each) for each in live]))


@blueprint.delete("/<id:key_id>")
@session_required
@one_deadline
@answers_nothing
async def revoke_key(key_id: int) -> Reply:
    """Revoke one of your API keys.

    It is refused within 2 seconds everywhere.
    """
    await database().transaction(api_keys.revoke, key_id=key_id, user_id=caller_id())
    auth().revocations.add_keys([key_id])
    record(Audit.KEY_REVOKED, user_id=caller_id(), key_id=key_id)
    return no_content()
