"""Parsers of settings about the service's place on the web.

The path under which it is published, and the origins of the pages that may use it.
"""

import re
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import PlainValidator

ANY_ORIGIN = "*"

# As browsers serialize an origin (RFC 6454, section 6.2): in lower case and ASCII. Other schemes
# than http and https are those of apps with a web view, such as capacitor://localhost.
_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://"
    r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*"
    r"|\[[0-9a-f:]+(?:\.[0-9]+)*\])(?::[1-9][0-9]{0,4})?"
)

_DEFAULT_PORTS = {"http": 80, "https": 443}


def _parse_origins(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [each.strip() for each in value.split(",")]
    if not isinstance(value, Iterable):
        raise ValueError("must be a list of origins such as https://app.example.com, or *")
    origins = tuple(dict.fromkeys(str(each) for each in value))
    if origins == (ANY_ORIGIN,):
        return origins
    for number, origin in enumerate(origins, start=1):
        if fault := _fault_of(origin):
            raise ValueError(f"has an entry (number {number}) that {fault}")
    return origins


def _fault_of(origin: str) -> str | None:
    """Return what is wrong with an origin, or None."""
    if not origin:
        return "is empty"
    if origin == ANY_ORIGIN:
        return "is *, which stands for all origins and must be alone"
    if origin == "null":
        return "is null, the origin of any sandboxed page"
    if "*" in origin:
        return "has a wildcard: name each origin, or only *"
    if _ORIGIN.fullmatch(origin) is None:
        return (
            "is not an origin as browsers send it: scheme, host and port in lower case, "
            "without a path or a slash at the end, such as https://app.example.com"
        )
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return "has an invalid address or port"
    if port is not None and port == _DEFAULT_PORTS.get(parts.scheme):
        return f"names the port {port}, which browsers leave out after {parts.scheme}"
    return None


# Characters that no hop encodes or decodes, and no dot segments, which proxies resolve.
_ROOT_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)*")

_MAX_ROOT_PATH_CHARACTERS = 200


def is_root_path(text: str) -> bool:
    """Return whether the service can be published under a path, such as ``/shop``, or the root.

    Not under ``/api``: whether a proxy has removed that from ``/api/products`` would be unclear.
    """
    return (
        len(text) <= _MAX_ROOT_PATH_CHARACTERS
        and _ROOT_PATH.fullmatch(text) is not None
        and not f"{text}/".startswith("/api/")
    )


def _parse_root_path(value: object) -> str:
    text = str(value)
    if f"{text}/".startswith("/api/"):
        raise ValueError("must not begin with /api, which begins the service's own paths")
    if not is_root_path(text):
        raise ValueError("must be a path such as /shop, without a slash at the end")
    return text


RootPath = Annotated[str, PlainValidator(_parse_root_path)]
Origins = Annotated[tuple[str, ...], PlainValidator(_parse_origins)]
