"""Operational routes: health, metrics, public keys, the OpenAPI document, problem types."""

import asyncio
from inspect import cleandoc
from typing import Literal

import orjson
from pydantic import Field
from quart_schema import document_response, hide, tag_blueprint
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.auth.context import auth
from catalog.auth.guards import public
from catalog.errors import NotFound, NotReady, Unavailable, public_errors
from catalog.http.adapter import Routes
from catalog.http.context import app_state
from catalog.http.openapi import document_of, is_built, refuses, revalidates, server_of, with_server
from catalog.http.replies.conditional import cacheable_reply, etag_of
from catalog.http.replies.reply import Reply, json_reply
from catalog.http.request import current_request
from catalog.http.schemas import ResponseBody
from catalog.observability.exposition import exposition

READINESS_SECONDS = 0.9
"""Time-out of the database probe of ``/readyz``, whose response is due within a second."""

HEALTH = ("/livez", "/readyz", "/metrics")
"""Paths that are exempt from load shedding, and logged only when they fail."""

blueprint = Routes("operations", __name__)
tag_blueprint(blueprint, ["operations"])


class Health(ResponseBody):
    """Health of the process."""

    status: str = Field(examples=["alive"])


class Readiness(Health):
    """Readiness of the process, and the age of its data on revocations."""

    status: str = Field(examples=["ready"])
    revocations_age_seconds: float = Field(
        examples=[0.361],
        description="Age in seconds of the known revocations and role changes; they stay in use "
        "while the database is unavailable.",
    )


@blueprint.get("/livez")
@public
@document_response(Health)
async def check_liveness() -> Reply:
    """Tell that the process is alive; looks at nothing else.

    For liveness probes: a failing database is no reason to restart the process.
    """
    return json_reply(Health(status="alive"))


@blueprint.get("/readyz")
@public
@refuses(NotReady)
@document_response(Readiness)
async def check_readiness() -> Reply:
    """Tell whether to send traffic: database reachable, schema current, not draining.

    For readiness probes and load balancers; answered within a second.
    """
    state = app_state()
    if state.draining:
        raise NotReady("The process is shutting down.")
    revocations = auth().revocations
    age = revocations.age
    try:
        async with state.database.probe(within=READINESS_SECONDS) as connection:
            revision = await _schema_revision(connection)
            # An unknown revision is newer than this release: during a rolling upgrade the old
            # instances keep serving on it.
            is_outdated = revision is None or (
                revision in state.known_revisions and revision != state.head_revision
            )
            if revocations.has_lapsed and not is_outdated:
                await revocations.load_changes(connection)
    except Unavailable as error:
        known = "has not been loaded yet" if age is None else f"is {age:.1f} seconds old"
        raise type(error)(f"{error.detail} The list of ended sessions {known}.") from error
    if is_outdated:
        raise NotReady("The database's schema is older than this release: run catalog migrate.")
    age = round(revocations.age or 0.0, 3)
    return json_reply(Readiness(status="ready", revocations_age_seconds=age))


async def _schema_revision(connection: AsyncConnection) -> str | None:
    try:
        revision: str | None = await connection.scalar(
            text("SELECT version_num FROM alembic_version")
        )
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        # The table is absent: this database has never been migrated.
        return None
    return revision


@blueprint.get("/metrics")
@public
@hide
async def read_metrics() -> Reply:
    """Return the instance's metrics for Prometheus; reads only files in memory."""
    state = app_state()
    for measure in state.gauges:
        measure()
    accept = ",".join(current_request().header_values("accept"))
    # One exposition at a time, because its thread competes with the event loop for the interpreter.
    async with state.exposing:
        body, media_type = await asyncio.to_thread(exposition, accept)
    return Reply(body, media_type=media_type)


class PublicKey(ResponseBody):
    """Common members of public keys (RFC 7517, section 4)."""

    use: Literal["sig"]
    kid: str = Field(
        description="Tokens signed with this key have the same `kid`.", examples=["Wb1tqFmYbTo"]
    )


class RsaKey(PublicKey):
    """An RSA key: modulus and exponent."""

    kty: Literal["RSA"]
    alg: Literal["RS256"]
    n: str = Field(
        description="The modulus.", examples=["0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiA"]
    )
    e: str = Field(description="The exponent.", examples=["AQAB"])


class EllipticKey(PublicKey):
    """A point on the curve P-256."""

    kty: Literal["EC"]
    alg: Literal["ES256"]
    crv: Literal["P-256"]
    x: str = Field(examples=["MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4"])
    y: str = Field(examples=["4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"])


class EdwardsKey(PublicKey):
    """An Ed25519 key."""

    kty: Literal["OKP"]
    alg: Literal["EdDSA"]
    crv: Literal["Ed25519"]
    x: str = Field(examples=["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"])


class PublicKeys(ResponseBody):
    """Keys for verifying access tokens, the current one first."""

    keys: list[RsaKey | EllipticKey | EdwardsKey]


@blueprint.get("/.well-known/jwks.json")
@public
@revalidates
@document_response(PublicKeys)
async def list_public_keys() -> Reply:
    """List the public keys of access tokens (RFC 7517); none while a secret signs them.

    For services that verify access tokens themselves.
    """
    # The models select the members, so no private one leaks, whatever a key holds.
    key_set = PublicKeys.model_validate({"keys": auth().signing_keys.public_keys()})
    body = key_set.model_dump_json().encode()
    # Not application/jwk-set+json: some clients reject it, and none rejects this.
    headers = {"Cache-Control": "public, max-age=300"}
    return cacheable_reply(body, etag_of(body, version=1), headers=headers)


@blueprint.get("/openapi.json")
@public
@hide
async def read_openapi() -> Reply:
    """Return the API's description (OpenAPI 3.1)."""
    request = current_request()
    if not is_built(request.app):
        # Building it takes 50 to 70 ms.
        async with app_state().describing:
            await asyncio.to_thread(document_of, request.app)
    body = orjson.dumps(with_server(document_of(request.app), server_of(request)))
    headers = {"Cache-Control": "no-cache"}
    return cacheable_reply(body, etag_of(body, version=1), headers=headers)


@blueprint.get("/problems/<slug>")
@public
@hide
async def read_problem(slug: str) -> Reply:
    """Explain a problem type; every problem's ``type`` refers to this path."""
    for kind in public_errors():
        if kind.slug == slug:
            meaning = " ".join(cleandoc(kind.__doc__ or "").split("Args:")[0].split())
            # Docstrings quote code as in reStructuredText.
            meaning = meaning.replace("``", "`")
            explanation = {
                "type": f"{current_request().prefix}/problems/{slug}",
                "title": kind.title,
                "status": kind.status,
                "code": slug,
                "meaning": meaning,
            }
            return json_reply(orjson.dumps(explanation))
    raise NotFound("There is no such problem type.")
