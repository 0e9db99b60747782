"""For operators and machines: health, metrics, the OpenAPI document, what each problem means."""

import asyncio
from inspect import cleandoc
from typing import Literal

import orjson
from pydantic import Field
from quart import Blueprint, Response, current_app, request
from quart_schema import document_response, hide, tag_blueprint
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.auth.context import auth
from catalog.auth.guards import public
from catalog.errors import NotFound, NotReady, Unavailable, public_errors
from catalog.http.conditional import etag_of
from catalog.http.context import running
from catalog.http.openapi import document_of, refuses, revalidates
from catalog.http.rendering import json_response
from catalog.http.schemas import ResponseBody
from catalog.observability.exposition import exposition

READINESS_SECONDS = 0.9
"""How long ``/readyz`` may look at the database; its answer is due within a second."""

HEALTH = ("/livez", "/readyz", "/metrics")
"""What is answered however much there is to do, and logged only when it is not well."""

blueprint = Blueprint("operations", __name__)
tag_blueprint(blueprint, ["operations"])


class Health(ResponseBody):
    """How the process is."""

    status: str


class Readiness(Health):
    """How the process is, and how much of late it knows."""

    revocations_age_seconds: float = Field(
        description="Since when it has not asked which sessions have ended and whose role is "
        "another; while the database is away, the last answer stands."
    )


@blueprint.get("/livez")
@public
@document_response(Health)
async def check_liveness() -> Response:
    """Tell that the process is alive; looks at nothing else."""
    return json_response(Health(status="alive"))


@blueprint.get("/readyz")
@public
@refuses(NotReady)
@document_response(Readiness)
async def check_readiness() -> Response:
    """Tell whether to send traffic: database reachable, schema current, not draining."""
    state = running()
    if state.draining:
        raise NotReady("The process is about to stop.")
    age = auth().revocations.age
    try:
        revision = await state.database.probe(_schema_revision, within=READINESS_SECONDS)
    except Unavailable as error:
        known = "are not known" if age is None else f"are those of {age:.1f} seconds ago"
        raise type(error)(f"{error.detail} The sessions that have ended {known}.") from error
    # A revision that this release does not know is newer: during a rolling upgrade the old
    # instances go on serving beside it.
    if revision is None or (revision in state.known_revisions and revision != state.head_revision):
        raise NotReady("The database's schema is older than this release: run catalog migrate.")
    if age is None:
        raise NotReady("It is not known yet which sessions have ended.")
    return json_response(Readiness(status="ready", revocations_age_seconds=round(age, 3)))


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


@blueprint.get("/metrics")
@public
@hide
async def read_metrics() -> Response:
    """What the instance has counted, for Prometheus; looks at nothing but files in memory."""
    state = running()
    for measure in state.gauges:
        measure()
    accept = ",".join(request.headers.getlist("Accept"))
    # One at a time: it shares the interpreter with the event loop, however many ask.
    async with state.exposing:
        body, media_type = await asyncio.to_thread(exposition, accept)
    return Response(body, content_type=media_type)


class PublicKey(ResponseBody):
    """What all public keys have in common (RFC 7517, section 4)."""

    use: Literal["sig"]
    kid: str = Field(description="Tokens that were signed with it carry the same.")


class RsaKey(PublicKey):
    """An RSA key: modulus and exponent."""

    kty: Literal["RSA"]
    alg: Literal["RS256"]
    n: str
    e: str


class EllipticKey(PublicKey):
    """A point on the curve P-256."""

    kty: Literal["EC"]
    alg: Literal["ES256"]
    crv: Literal["P-256"]
    x: str
    y: str


class EdwardsKey(PublicKey):
    """An Ed25519 key."""

    kty: Literal["OKP"]
    alg: Literal["EdDSA"]
    crv: Literal["Ed25519"]
    x: str


class PublicKeys(ResponseBody):
    """The keys that access tokens can be verified with, the current one first."""

    keys: list[RsaKey | EllipticKey | EdwardsKey]


@blueprint.get("/.well-known/jwks.json")
@public
@revalidates
@document_response(PublicKeys)
async def list_public_keys() -> Response:
    """List the public keys of access tokens (RFC 7517); none while a secret signs them."""
    # The models decide what goes out, so nothing private can, whatever a key holds.
    body = PublicKeys.model_validate({"keys": auth().keys.public_keys()}).model_dump_json().encode()
    headers = {"Cache-Control": "public, max-age=300", "ETag": etag_of(body, version=1)}
    # Not application/jwk-set+json: some clients refuse it, and none refuses this.
    response = json_response(body, headers=headers)
    await response.make_conditional(request)
    return response


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
