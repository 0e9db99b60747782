"""A proxy between the checks and the service that breaks the contract, one break for each rule."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx

FORBIDDEN_COPIES = ("content-length", "content-encoding", "transfer-encoding")


@dataclass
class Exchange:
    """A request and, once it was forwarded, its response; both may be changed.

    Attributes:
        answered: whether the request is not forwarded, because the break has answered it.
    """

    method: str
    url: httpx.URL
    headers: httpx.Headers
    body: bytes
    status: int = 0
    answer_headers: httpx.Headers = field(default_factory=httpx.Headers)
    answer: bytes = b""
    answered: bool = False

    def asks(self, pattern: str) -> bool:
        """Tell whether method and path match a pattern."""
        return re.search(pattern, f"{self.method} {self.url.path}") is not None

    def reply(self, status: int) -> None:
        """Answer without forwarding the request."""
        self.status, self.answered = status, True

    @property
    def json(self) -> Any:
        """The body of the response."""
        return json.loads(self.answer)


Step = Callable[[Exchange], object]


@dataclass(frozen=True)
class Break:
    """A breach of the contract; ``bool`` stands for a step that changes nothing.

    Attributes:
        before: changes a request.
        after: changes a response.
    """

    before: Step = bool
    after: Step = bool


class BreakingProxy(httpx.AsyncBaseTransport):
    """Forwards requests to the service, and breaks what it is told to.

    Attributes:
        breach: the break; None for none.
    """

    def __init__(self) -> None:
        self.breach: Break | None = None
        self._network = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Forward a request."""
        if self.breach is None:
            return await self._network.handle_async_request(request)
        body = await request.aread()
        exchange = Exchange(request.method, request.url, httpx.Headers(request.headers), body)
        self.breach.before(exchange)
        if not exchange.answered:
            exchange.headers.pop("content-length", None)
            forwarded = httpx.Request(
                exchange.method, exchange.url, headers=exchange.headers, content=exchange.body
            )
            response = await self._network.handle_async_request(forwarded)
            if "event-stream" in response.headers.get("content-type", ""):
                return response
            exchange.answer = await response.aread()
            exchange.status, exchange.answer_headers = response.status_code, response.headers
            await response.aclose()
        self.breach.after(exchange)
        headers = exchange.answer_headers.copy()
        for name in FORBIDDEN_COPIES:
            headers.pop(name, None)
        content = None if request.method == "HEAD" else exchange.answer
        return httpx.Response(exchange.status, headers=headers, content=content)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._network.aclose()


def without_answer_header(name: str, pattern: str = "") -> Break:
    """Drop a header of responses."""
    return Break(after=lambda x: x.asks(pattern) and x.answer_headers.pop(name, None))


def with_answer_header(name: str, value: str) -> Break:
    """Replace a header of responses."""

    def after(exchange: Exchange) -> None:
        exchange.answer_headers[name] = value

    return Break(after=after)


def without_header(name: str) -> Break:
    """Drop a header of requests."""
    return Break(before=lambda x: x.headers.pop(name, None))


def without_parameter(name: str) -> Break:
    """Drop a parameter of requests."""

    def before(exchange: Exchange) -> None:
        # Without a change of what other parameters look like.
        query = re.sub(rb"(^|&)%s=[^&]*" % name.encode(), b"", exchange.url.query)
        exchange.url = exchange.url.copy_with(query=query.lstrip(b"&") or None)

    return Break(before=before)


def with_status(pattern: str, old: int, new: int) -> Break:
    """Replace a status of responses."""

    def after(exchange: Exchange) -> None:
        if exchange.asks(pattern) and exchange.status == old:
            exchange.status = new

    return Break(after=after)


def unforwarded(pattern: str, status: int = 204) -> Break:
    """Answer requests without doing anything."""
    return Break(before=lambda x: x.reply(status) if x.asks(pattern) else None)


def with_answer(pattern: str, edit: Callable[[Any], object]) -> Break:
    """Edit the JSON of responses, in place."""

    def after(exchange: Exchange) -> None:
        if exchange.asks(pattern) and exchange.answer.startswith(b"{"):
            members = exchange.json
            edit(members)
            exchange.answer = json.dumps(members).encode()

    return Break(after=after)


def with_body(pattern: str, edit: Callable[[Any], object]) -> Break:
    """Edit the JSON of requests, in place."""

    def before(exchange: Exchange) -> None:
        if exchange.asks(pattern) and exchange.body.startswith(b"{"):
            members = json.loads(exchange.body)
            edit(members)
            exchange.body = json.dumps(members).encode()

    return Break(before=before)


def stale_cache(pattern: str) -> Break:
    """Answer requests from a cache that nothing invalidates."""
    known: dict[str, tuple[int, httpx.Headers, bytes]] = {}

    def before(exchange: Exchange) -> None:
        if str(exchange.url) in known:
            exchange.reply(0)
            exchange.status, exchange.answer_headers, exchange.answer = known[str(exchange.url)]

    def after(exchange: Exchange) -> None:
        if exchange.asks(pattern):
            known[str(exchange.url)] = exchange.status, exchange.answer_headers, exchange.answer

    return Break(before, after)


def showing_keys() -> Break:
    """Show API keys in their list, too."""
    shown: list[str] = []

    def after(exchange: Exchange) -> None:
        if exchange.asks("POST /api/auth/keys"):
            shown.append(exchange.json["key"])
        elif exchange.asks("GET /api/auth/keys"):
            exchange.answer = json.dumps({**exchange.json, "shown": shown}).encode()

    return Break(after=after)


def _telling_unknown_names(exchange: Exchange) -> None:
    if b"unknown-" in exchange.body:
        exchange.answer = exchange.answer.replace(b"wrong", b"unknown")


def _redirect(exchange: Exchange) -> None:
    if exchange.url.path.endswith("/"):
        exchange.status = 308


def _drop_first_after_cursor(exchange: Exchange) -> None:
    if "cursor" in exchange.url.params:
        members = exchange.json
        del members["products"][:1]
        exchange.answer = json.dumps(members).encode()


def _drop_last_line(exchange: Exchange) -> None:
    if "ndjson" in exchange.answer_headers.get("content-type", ""):
        exchange.answer = exchange.answer[: exchange.answer.rstrip().rfind(b"\n") + 1]


def _forget_token(exchange: Exchange) -> None:
    query = re.sub(rb"(since=\d+)\.\w+", rb"\1", exchange.url.query)
    exchange.url = exchange.url.copy_with(query=query)


def _last_value(exchange: Exchange) -> None:
    """Keep the last value of each parameter, as some proxies and frameworks do."""
    exchange.url = exchange.url.copy_with(params=dict(exchange.url.params))


def _lower(members: Any, name: str) -> None:
    if name in members:
        members[name] -= 1


def _lower_lines(members: Any) -> None:
    for error in members.get("errors", ()):
        _lower(error, "line")


_numbers = count()

BREAKS: Mapping[str, Break] = {
    "common_headers": without_answer_header("x-content-type-options"),
    "request_id": without_header("x-request-id"),
    "tokens_are_not_stored": with_answer_header("cache-control", "public, max-age=60"),
    "errors_are_problems": with_answer_header("content-type", "text/html"),
    "methods": without_answer_header("allow"),
    "head": with_status("^HEAD", 200, 204),
    "trailing_slash": Break(after=_redirect),
    "ids": with_status("GET /api/products/", 404, 400),
    "unknown_fields": with_body("POST /api/products$", lambda body: body.pop("colour", None)),
    "strict_types": with_status("POST /api/products$", 422, 201),
    "strict_json": with_status("POST /api/products$", 400, 500),
    "large_bodies": with_status("POST /api/products$", 413, 400),
    "media_types": Break(before=lambda x: x.headers.update({"content-type": "application/json"})),
    "codings": without_header("content-encoding"),
    "negotiation": with_status("GET /api/products$", 406, 200),
    "operations": with_status("GET /readyz", 200, 503),
    "sign_up": with_status("POST /api/auth/signup", 201, 200),
    "taken_names": with_answer("signup", lambda answer: answer["errors"].pop()),
    "faulty_sign_up": with_body("signup", lambda body: body.pop("is_admin", None)),
    "log_in": with_answer("login", lambda answer: answer["user"].pop("role")),
    "wrong_credentials": Break(after=_telling_unknown_names),
    "refresh": with_status("GET /api/auth/refresh", 200, 405),
    "token_kinds": with_answer("GET", lambda answer: answer.update(code="token-invalid")),
    "forged_tokens": without_answer_header("www-authenticate"),
    "rotation": with_answer(
        "refresh", lambda answer: answer.update(refresh_token=str(next(_numbers)))
    ),
    "log_out": unforwarded("POST /api/auth/logout"),
    "sessions": with_status("DELETE /api/auth/sessions/", 404, 204),
    "password_change": unforwarded("POST /api/auth/password"),
    "administration": with_status("GET /api/users", 403, 200),
    "account_deletion": unforwarded("DELETE /api/auth/me"),
    "key_is_shown_once": showing_keys(),
    "key_scopes": with_body("POST /api/auth/keys", lambda body: body.update(scope="write")),
    "keys_manage_nothing": with_status("", 403, 200),
    "key_revocation": unforwarded("DELETE /api/auth/keys/"),
    "create": without_answer_header("location"),
    "exact_values": with_answer(
        "/api/products", lambda answer: answer.update(name=answer["name"].strip())
    ),
    "invalid_products": with_answer(
        "POST", lambda answer: answer["errors"].__delitem__(slice(1, 9))
    ),
    "ownership": with_status("PATCH", 403, 404),
    "delete": with_answer("DELETE", lambda answer: answer.update(message="Gone.")),
    "patch": with_body(
        "PATCH", lambda body: body.get("description", 1) is None and body.update(description="")
    ),
    "if_match": without_header("if-match"),
    "if_none_match": without_header("if-none-match"),
    "idempotency": without_header("idempotency-key"),
    "reused_key": without_header("idempotency-key"),
    "merge_patch": with_status("PATCH", 200, 415),
    "product_keys": with_body("POST /api/products$", lambda body: body.pop("key", None)),
    "page_shape": without_answer_header("link"),
    "walks": Break(after=_drop_first_after_cursor),
    "cursors": with_status("GET", 400, 422),
    "sorting": without_parameter("sort"),
    "search": without_parameter("q"),
    "choice_of_fields": with_answer("GET", lambda answer: answer.pop("total", None)),
    "query_forms": Break(before=_last_value),
    "invalid_parameters": with_status("GET /api/products$", 422, 400),
    "exports": Break(after=_drop_last_line),
    "import_report": with_answer("POST", _lower_lines),
    "csv_import": with_answer("POST", lambda answer: _lower(answer, "created")),
    "csv_dialects": with_answer("POST", lambda answer: _lower(answer, "created")),
    "atomic_import": without_parameter("atomic"),
    "dry_run": without_parameter("dry_run"),
    "nothing_is_hidden": with_answer("POST", lambda answer: _lower(answer, "failed")),
    "upsert": with_answer("POST", lambda answer: answer.update(unchanged=0)),
    "change_log": with_answer("/changes", lambda answer: answer["changes"].pop(1)),
    "nothing_takes_no_position": with_body("PATCH", lambda body: body.update(price=1.5)),
    "never_stale": stale_cache("GET /api/products$"),
    "long_poll": without_parameter("wait"),
    "event_stream": without_header("last-event-id"),
    "other_histories": Break(before=_forget_token),
}
"""Breaks that turn each rule red, by the rule's name."""
