"""Dispatcher of hot requests: calls their views, in place of the framework.

A request costs the framework a millisecond. The views need nothing of it: their decorators read the
current request, and they return a reply. So requests for registered operations are answered by
calling the very same views here; all others are passed on to the framework.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    HTTPScope,
    Scope,
)
from quart import Quart

from catalog.http.middleware.concurrency_limit import Capacity
from catalog.http.replies.negotiation import JSON, best_of, offered_by
from catalog.http.replies.problems import problem_reply, to_problem
from catalog.http.replies.reply import Reply, send_reply
from catalog.http.request import MATCH, ROUTE, Fields, annotate, content_type_of, fields_of
from catalog.http.routing import IdConverter
from catalog.http.validation import MERGE_PATCH, is_utf8, takes_query

MAX_ACCEPT_BYTES = 512
"""Longest ``Accept`` of a request that is dispatched here, because the results are cached."""

# A query that selects the media type, or may do so by an encoded name.
_FORMAT = re.compile(rb"(?:\A|&)(?:format=|[^=&%]*+%)")

_ID = re.compile(IdConverter.regex)
_ID_RULE = re.compile(r"(?P<parent>[^<]*)/<id:(?P<name>\w+)>")


class Operation(NamedTuple):
    """Operation that is dispatched without the framework.

    Attributes:
        endpoint: the framework's name of it.
        max_requests: bound on its own requests in progress; None if it shares that of all reads, or
            of all writes.
        waits_with: the query parameter with which it may wait; such requests are left to the
            framework, which notices that a client disconnects.
    """

    endpoint: str
    max_requests: int | None = None
    waits_with: bytes | None = None


class _Target(NamedTuple):
    rule: str
    view: Callable[..., Awaitable[Reply]]
    offered: tuple[str, ...]
    capacity: Capacity | None
    takes_query: bool
    waits_with: bytes | None = None
    parameter: str | None = None


class Match(NamedTuple):
    """Operation that a request is for, and the arguments in its path."""

    target: _Target
    arguments: Mapping[str, int]


class Dispatcher:
    """ASGI application: calls the views of registered operations, and else the framework.

    Args:
        app: the app with the views.
        operations: the operations to dispatch here. Their answer must be short, and they are not
            cancelled when the client disconnects.

    Raises:
        ValueError: an operation cannot be dispatched without the framework.
    """

    def __init__(self, app: Quart, operations: Iterable[Operation]) -> None:
        self._framework: ASGIFramework = app.asgi_app
        self._fixed: dict[tuple[str, str], _Target] = {}
        self._by_id: dict[tuple[str, str], _Target] = {}
        for operation in operations:
            self._register(app, operation)

    def _register(self, app: Quart, operation: Operation) -> None:
        blueprint = operation.endpoint.rpartition(".")[0]
        if any(blueprint in hooks for hooks in (app.before_request_funcs, app.after_request_funcs)):
            raise ValueError(f"{operation.endpoint} has hooks that only the framework calls")
        view: Any = app.view_functions[operation.endpoint]
        most = operation.max_requests
        capacity = None if most is None else Capacity("reads", most)
        for rule in app.url_map.iter_rules(operation.endpoint):
            target = _Target(
                rule.rule,
                view,
                offered_by(view),
                capacity,
                takes_query(view),
                operation.waits_with,
            )
            methods = (rule.methods or set()) - {"HEAD", "OPTIONS"}
            if not rule.arguments:
                self._fixed |= {(method, rule.rule): target for method in methods}
            elif by_id := _ID_RULE.fullmatch(rule.rule):
                target = target._replace(parameter=by_id["name"])
                self._by_id |= {(method, by_id["parent"]): target for method in methods}
            else:
                raise ValueError(f"{rule.rule} has parameters other than an id at its end")

    def match(self, scope: Any) -> Match | None:
        """Return the operation that a request is for; None if the framework must answer it."""
        # Asked for by the protocol, by the bound on requests, and here.
        if MATCH not in scope:
            scope[MATCH] = self._find(scope)
        found: Match | None = scope[MATCH]
        return found

    def capacity_of(self, scope: HTTPScope) -> Capacity | None:
        """Return the capacity of the operation that a request is for, if it has one of its own."""
        matched = self.match(scope)
        return None if matched is None else matched.target.capacity

    def _find(self, scope: HTTPScope) -> Match | None:
        method, path = scope["method"], scope["path"]
        target = self._fixed.get((method, path))
        arguments = {}
        if target is None:
            parent, _, last = path.rpartition("/")
            target = self._by_id.get((method, parent))
            if target is None or target.parameter is None or _ID.fullmatch(last) is None:
                return None
            arguments = {target.parameter: int(last)}
        if scope.get("root_path"):
            return None
        query = scope["query_string"]
        if query and not target.takes_query:
            return None
        # The parameter's name may be percent-encoded.
        if target.waits_with is not None and (target.waits_with in query or b"%" in query):
            return None
        fields = fields_of(scope)
        if len(target.offered) > 1 and not _takes_json(target.offered, fields, scope):
            return None
        if not _has_plain_body(fields):
            return None
        return Match(target, arguments)

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one request."""
        if scope["type"] != "http" or (matched := self.match(scope)) is None:
            await self._framework(scope, receive, send)
            return
        annotate(scope, ROUTE, matched.target.rule)
        try:
            reply = await matched.target.view(**matched.arguments)
        except Exception as fault:  # noqa: BLE001 (it is reported to the client, and logged)
            reply = problem_reply(to_problem(fault))
        await send_reply(send, reply)


def _takes_json(offered: tuple[str, ...], fields: Fields, scope: HTTPScope) -> bool:
    """Return whether the response will certainly be JSON, as far as the request decides it.

    Other media types are streamed, which takes a response of unknown length.
    """
    if _FORMAT.search(scope["query_string"]):
        return False
    values = fields.get(b"accept")
    if values is None:
        return True
    accept = b",".join(values)
    return len(accept) <= MAX_ACCEPT_BYTES and _prefers_json(offered, accept)


@lru_cache(1024)
def _prefers_json(offered: tuple[str, ...], accept: bytes) -> bool:
    return best_of(offered, accept.decode("latin-1")) == JSON


def _has_plain_body(fields: Fields) -> bool:
    """Return whether a request has a JSON body or none."""
    if b"transfer-encoding" not in fields and fields.get(b"content-length", [b"0"]) == [b"0"]:
        return True
    media_type, parameters = content_type_of(fields)
    # The views decide which of them they accept.
    return media_type in {JSON, MERGE_PATCH} and is_utf8(parameters)
