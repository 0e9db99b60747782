"""For operators and machines: health, the OpenAPI document, and what each kind of problem means."""

from inspect import cleandoc

import orjson
from quart import Blueprint, Response, current_app, request
from quart_schema import document_response, hide, tag_blueprint
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.auth.guards import public
from catalog.errors import NotFound, NotReady, public_errors
from catalog.http.conditional import etag_of
from catalog.http.context import running
from catalog.http.openapi import document_of, refuses
from catalog.http.rendering import json_response
from catalog.http.schemas import ResponseBody

READINESS_SECONDS = 0.9
"""How long ``/readyz`` may look at the database; its answer is due within a second."""

blueprint = Blueprint("operations", __name__)
tag_blueprint(blueprint, ["operations"])


class Health(ResponseBody):
    """How the process is."""

    status: str


@blueprint.get("/livez")
@public
@document_response(Health)
async def check_liveness() -> Response:
    """Tell that the process is alive; looks at nothing else."""
    return json_response(Health(status="alive"))


@blueprint.get("/readyz")
@public
@refuses(NotReady)
@document_response(Health)
async def check_readiness() -> Response:
    """Tell whether to send traffic: database reachable, schema current, not draining."""
    state = running()
    if state.draining:
        raise NotReady("The process is about to stop.")
    revision = await state.database.probe(_schema_revision, within=READINESS_SECONDS)
    # A revision that this release does not know is newer: during a rolling upgrade the old
    # instances go on serving beside it.
    if revision is None or (revision in state.known_revisions and revision != state.head_revision):
        raise NotReady("The database's schema is older than this release: run catalog migrate.")
    return json_response(Health(status="ready"))


async def _schema_revision(connection: AsyncConnection) -> str | None:
    try:
        revision: str | None = await connection.scalar(
            text("SELECT version_num FROM alembic_version")
        )
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        # There is no such table: nobody has migrated this database.
        return None
    return revision


@blueprint.get("/openapi.json")
@public
@hide
async def read_openapi() -> Response:
    """The API's description (OpenAPI 3.1)."""
    body = orjson.dumps(document_of(current_app))
    headers = {"Cache-Control": "no-cache", "ETag": etag_of(body, version=1)}
    response = json_response(body, headers=headers)
    await response.make_conditional(request)
    return response


@blueprint.get("/problems/<slug>")
@public
@hide
async def read_problem(slug: str) -> Response:
    """What a kind of problem means: the address in every problem's ``type``."""
    for kind in public_errors():
        if kind.slug == slug:
            meaning = " ".join(cleandoc(kind.__doc__ or "").split("Args:")[0].split())
            explanation = {
                "type": f"/problems/{slug}",
                "title": kind.title,
                "status": kind.status,
                "code": slug,
                "meaning": meaning,
            }
            return json_response(orjson.dumps(explanation))
    raise NotFound("There is no such kind of problem.")
