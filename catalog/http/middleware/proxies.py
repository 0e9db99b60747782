"""Requests as the client sent them, when they come through trusted proxies.

Sets the client's address, the scheme and the host, and separates the path prefix under which the
service is published from the path, of which several slashes at its beginning become one.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope

from catalog.http.middleware.forwarded import parse_address, parse_forwarded, parse_node
from catalog.http.request import PREFIX, Fields, changed, fields_of
from catalog.observability.log_throttle import LogThrottle
from catalog.observability.logs import logger
from catalog.settings import is_root_path

UNREADABLE_SECONDS = 3600.0
"""Minimum time between two log lines about the same field from the same proxy."""

_log = logger(__name__)

_HOST = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")

_SHOWN_CHARACTERS = 100

_NOTHING: Mapping[str, str] = {}

_SCHEMES = {b"http": "http", b"https": "https"}

KNOWN = 1024
"""Peers, and values of ``X-Forwarded-For``, whose readings are cached."""

_MAX_KNOWN_BYTES = 64


class TrustedProxies:
    """ASGI middleware: applies what trusted proxies say about a request, and only they.

    The list of addresses is read from its right end, where the nearest proxy appends, up to the
    first one that is not a trusted proxy's: that is the client. Entries further left may be forged.
    A unix socket has no peer address and is trusted: only processes that may open it can connect.

    If an entry cannot be read, the request counts for the last address to its right: that of the
    proxy. All clients behind it then share their limits, but none can evade them. The same holds if
    ``Forwarded`` and ``X-Forwarded-For`` name different clients: proxies write one of them and may
    pass on the other as the client sent it. Both are logged.

    Args:
        app: the wrapped application.
        networks: networks of the trusted proxies.
        root_path: the prefix under which the service is published, unless a proxy names another.
    """

    def __init__(
        self,
        app: ASGIFramework,
        networks: Iterable[IPv4Network | IPv6Network],
        root_path: str = "",
    ) -> None:
        self._app = app
        self._networks = tuple(networks)
        self._root_path = root_path
        self._unreadable = LogThrottle(UNREADABLE_SECONDS)
        # Reading addresses took a tenth of the time of a page.
        self._is_trusted = lru_cache(KNOWN)(self._is_in_networks)
        self._read = lru_cache(KNOWN)(self._read_list)

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one request."""
        await self._app(self.seen(scope) if scope["type"] == "http" else scope, receive, send)

    def seen(self, scope: Any) -> Any:
        """Return the scope of a request as its client sent it, with one slash before its path."""
        if scope["path"].startswith("//"):
            scope = changed(scope, path=with_one_slash(scope["path"]))
        client = scope.get("client")
        peer = client[0] if client else None
        if peer is None or self._is_trusted(peer):
            return self._seen_through(scope, peer or "")
        return published_under(self._root_path, scope) if self._root_path else scope

    def _is_in_networks(self, address: str) -> bool:
        try:
            parsed = parse_address(address)
        except ValueError:
            # Hypercorn's name for the peer of a unix socket is not an address.
            return address == "<local>"
        return any(parsed in network for network in self._networks)

    def _seen_through(self, scope: Any, peer: str) -> Any:
        fields = fields_of(scope)
        address, said = self._client(fields, peer)
        changes: dict[str, Any] = {}
        if address is not None:
            changes["client"] = (address, 0)
        scheme = self._scheme(fields, said, peer)
        if scheme is not None:
            changes["scheme"] = scheme
        if changes:
            scope = {**scope, **changes}
        host = _last(fields, b"x-forwarded-host") or said.get("host")
        if host:
            scope = self._with_host(scope, host, peer)
        prefix = self._prefix(fields, peer)
        return published_under(prefix, scope) if prefix else scope

    def _client(self, fields: Fields, peer: str) -> tuple[str | None, Mapping[str, str]]:
        """Return the client's address, None for the peer's, and what else ``Forwarded`` says."""
        lines = fields.get(b"x-forwarded-for")
        address = None
        if lines is not None and len(lines) == 1 and len(lines[0]) <= _MAX_KNOWN_BYTES:
            address = self._read(lines[0])
        if lines is not None and address is None:
            hops = ",".join([line.decode("latin-1") for line in lines]).split(",")
            address, _ = self._walk("X-Forwarded-For", hops, peer)
        if b"forwarded" not in fields:
            return address, _NOTHING
        try:
            elements = parse_forwarded(fields[b"forwarded"])
        except ValueError:
            value = b",".join(fields[b"forwarded"]).decode("latin-1")
            self._log_unreadable("Forwarded", value, peer)
            return None, _NOTHING
        if not any("for" in element for element in elements):
            return address, elements[-1]
        nodes = [element.get("for", "") for element in elements]
        other, place = self._walk("Forwarded", nodes, peer)
        if lines is not None and other != address:
            both = f"{nodes[place]}; X-Forwarded-For: {address}"
            self._log_unreadable("Forwarded", both, peer)
            return None, _NOTHING
        return other, elements[place]

    def _read_list(self, line: bytes) -> str | None:
        """Return the client in a list of addresses; None if one on the way cannot be read."""
        address = None
        for hop in reversed(line.decode("latin-1").split(",")):
            try:
                # Canonical spelling, so that rate limits count a client once.
                address = str(parse_node(hop))
            except ValueError:
                return None
            if not self._is_trusted(address):
                break
        return address

    def _scheme(self, fields: Fields, said: Mapping[str, str], peer: str) -> str | None:
        values = fields.get(b"x-forwarded-proto")
        if values and (plain := _SCHEMES.get(values[-1])):
            return plain
        text = _last(fields, b"x-forwarded-proto") or said.get("proto", "")
        scheme = _SCHEMES.get(text.lower().encode("latin-1"))
        if text and scheme is None:
            self._log_unreadable("X-Forwarded-Proto", text, peer)
        return scheme

    def _walk(self, header: str, hops: Sequence[str], peer: str) -> tuple[str | None, int]:
        """Return the client among the hops, None if the nearest is unreadable, and its place."""
        address = None
        for place in range(len(hops) - 1, -1, -1):
            try:
                hop = str(parse_node(hops[place]))
            except ValueError:
                self._log_unreadable(header, hops[place], peer)
                return address, min(place + 1, len(hops) - 1)
            address = hop
            if not self._is_trusted(address):
                return address, place
        return address, 0

    def _with_host(self, scope: Any, host: str, peer: str) -> Any:
        value = host.encode("latin-1")
        if _HOST.fullmatch(value) is None:
            self._log_unreadable("X-Forwarded-Host", host, peer)
            return scope
        others = [header for header in scope["headers"] if header[0] != b"host"]
        return changed(scope, headers=[(b"host", value), *others])

    def _prefix(self, fields: Fields, peer: str) -> str:
        prefix = _last(fields, b"x-forwarded-prefix")
        if not prefix:
            return self._root_path
        if is_root_path(prefix.rstrip("/")):
            return prefix.rstrip("/")
        self._log_unreadable("X-Forwarded-Prefix", prefix, peer)
        return self._root_path

    def _log_unreadable(self, header: str, value: str, peer: str) -> None:
        left_out = self._unreadable.admit((header, peer))
        if left_out is not None:
            shown = value.strip()[:_SHOWN_CHARACTERS]
            _log.warning(
                "forwarded_unreadable", header=header, value=shown, proxy=peer, left_out=left_out
            )


def published_under(prefix: str, scope: Any) -> Any:
    """Return a request's scope with its prefix apart from its path.

    Proxies forward the path with the prefix or without it. As with ASGI's ``root_path``, a path
    that begins with the prefix has it removed, and any other stays as it is.
    """
    return changed(scope, path=path_below(prefix, scope["path"]), **{PREFIX: prefix})


def path_below(prefix: str, path: str) -> str:
    """Return a path without a prefix that it begins with."""
    if path == prefix or path.startswith(f"{prefix}/"):
        return with_one_slash(path[len(prefix) :])
    return path


def with_one_slash(path: str) -> str:
    """Return a path with one slash at its beginning, as nginx and werkzeug read it.

    Done here for all layers, because each decides by the path: how large a body may be, how it is
    read, what form errors have.
    """
    return "/" + path.lstrip("/")


def _last(fields: Fields, name: bytes) -> str:
    """Return the last entry of a field, that of the nearest proxy; empty if there is none."""
    values = fields.get(name)
    return values[-1].decode("latin-1").rpartition(",")[2].strip() if values else ""
