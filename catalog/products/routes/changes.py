"""``/api/products/changes``: what has happened since."""

import orjson
from quart import Blueprint, Response
from quart_schema import document_response, tag_blueprint, validate_querystring

from catalog.auth.guards import public
from catalog.errors import ChangesGone
from catalog.http.context import database
from catalog.http.limits import limited
from catalog.http.openapi import refuses
from catalog.http.rendering import json_response
from catalog.products import changes
from catalog.products.schemas import ChangePage, ChangesQuery, PositionHeaders

blueprint = Blueprint("product_changes", __name__, url_prefix="/api/products/changes")
tag_blueprint(blueprint, ["products"])


@blueprint.get("")
@limited("read")
@public
@refuses(ChangesGone)
@validate_querystring(ChangesQuery)
@document_response(ChangePage, 200, PositionHeaders)
async def list_changes(query_args: ChangesQuery) -> Response:
    """List what has happened to products after a position, in the order of the commits."""
    found = await database().reading(
        changes.read_changes, since=query_args.since, limit=query_args.limit
    )
    body = orjson.dumps(found._asdict())
    headers = {"Cache-Control": "no-cache", changes.HEADER: str(found.position)}
    return json_response(body, headers=headers)
