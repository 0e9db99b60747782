"""The document of an app: its general part, and its servers."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import metadata
from inspect import cleandoc
from typing import Any

from quart import Quart
from quart_schema import Info, QuartSchema, Tag
from quart_schema.openapi import Contact, ExternalDocumentation, HttpSecurityScheme, License

from catalog import __version__
from catalog.http.openapi.provider import Provider
from catalog.http.request import Request

_DESCRIPTION = """
Users and products over HTTP, with JWT sign-in.

Bodies are JSON in UTF-8. Every error is `application/problem+json` (RFC 9457) with a stable
`code`. Clients must ignore fields that they do not know. Lists in a query are separated by commas;
repeated parameters mean the same.
"""

_BEARER = (
    "A token. Signing up and logging in return two: the access token, for all operations but a "
    "refresh, and the refresh token, which gets new access tokens. Programs send an API key in "
    "place of an access token."
)

_SERVER = "This service, at the address from which the document was read."

# Anything else in a Host header is no name that a client could have used (RFC 3986, section 3.2).
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?")


@dataclass
class _Bearer(HttpSecurityScheme):
    description: str = _BEARER


def configure_openapi(app: Quart, *, tags: Iterable[Tag], bearer: str) -> None:
    """Collect the app's operations; quart-schema's routes are off, the service has its own.

    Args:
        app: the app, before its routes are added.
        tags: the groups of operations, in display order.
        bearer: the name under which guards refer to the security scheme.
    """
    project = metadata("catalog")
    urls = dict(each.split(", ") for each in project.get_all("Project-URL", []))
    QuartSchema(
        app,
        openapi_path=None,
        info=Info(
            title="catalog",
            version=__version__,
            summary=project["Summary"],
            description=cleandoc(_DESCRIPTION),
            contact=Contact(name=project["Author"], url=urls["Issues"]),
            license=License(*[project["License-Expression"]] * 2),
        ),
        tags=list(tags),
        external_docs=ExternalDocumentation(urls["Documentation"], "Documentation"),
        security_schemes={bearer: _Bearer(scheme="bearer", bearer_format="JWT")},
        openapi_provider_class=Provider,
        conversion_preference="pydantic",
    )


def is_built(app: Quart) -> bool:
    """Tell whether ``document_of`` returns at once."""
    return "catalog.openapi" in app.extensions


def document_of(app: Quart) -> dict[str, Any]:
    """Return an app's OpenAPI document, built once: building takes 50 to 70 ms."""
    built: dict[str, Any] | None = app.extensions.get("catalog.openapi")
    if built is None:
        built = app.extensions["QUART_SCHEMA"].openapi_provider.schema()
        app.extensions["catalog.openapi"] = built
    return built


def with_server(document: dict[str, Any], url: str) -> dict[str, Any]:
    """Return a document with the URL to which clients append its paths."""
    return {**document, "servers": [{"url": url, "description": _SERVER}]}


def server_of(request: Request) -> str:
    """Return the URL of the service as the client of a request sees it.

    Absolute, since many tools do not resolve a relative one, unless ``Host`` is no host's name.
    """
    host = request.header("host")
    if not _AUTHORITY.fullmatch(host):
        return request.prefix or "/"
    return f"{request.scope['scheme']}://{host}{request.prefix}"
