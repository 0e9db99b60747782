"""Fuzz targets: parsers of client input, each with an oracle and seeds.

A target takes any bytes. It raises when a parser raises an undocumented exception or disagrees with
a second parser of the same input.
"""

import json
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial

import h11
from pydantic import ValidationError
from quart import Quart
from sqlalchemy import URL

from catalog.app import create_app
from catalog.auth.guards import token_among, tokens
from catalog.auth.normalization import fold
from catalog.auth.schemas import LogIn, SignUp
from catalog.auth.tokens.jwt import Kind
from catalog.errors import (
    InvalidCursor,
    InvalidRequest,
    LinesInvalid,
    MalformedRequest,
    TokenInvalid,
    TokenMissing,
)
from catalog.fastpath import request_parser
from catalog.http.idempotency_key import key_among
from catalog.http.pagination import Cursors
from catalog.http.replies.conditional import Tags
from catalog.http.replies.negotiation import CSV as CSV_TYPE
from catalog.http.replies.negotiation import JSON, NDJSON, best_of
from catalog.http.replies.problems import field_errors, problem
from catalog.http.strict_json import parse_json
from catalog.products.bulk.formats import FORMATS, Format, Parsed, ParsedProduct
from catalog.products.schemas import ListQuery, ProductCreate
from catalog.products.search.tokenizer import MAX_TOKEN_LENGTH, terms_of, text_of, tokens_of
from catalog.products.selection import Selection
from tests.engines import settings_for


class Disagreement(AssertionError):
    """Different results of a parser and its oracle for the same input."""


@dataclass(frozen=True, slots=True)
class Target:
    """A parser to fuzz.

    Attributes:
        run: parses one input; raises on a finding.
        seeds: initial corpus.
    """

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]


def agree(first: object, second: object) -> None:
    """Compare the results of two parsers.

    Raises:
        Disagreement: they differ.
    """
    if first != second:
        raise Disagreement(f"{first!r:.500} != {second!r:.500}")


@cache
def _app() -> Quart:
    """Return an app with keys; its database is never opened."""
    return create_app(settings_for(URL.create("sqlite+aiosqlite", database="unused.db")))


_CURSORS = Cursors(b"k" * 32)


def read_cursor(data: bytes) -> None:
    """Decode a cursor; an accepted cursor has only one spelling."""
    text = data.decode("latin-1")
    with suppress(InvalidCursor):
        position = _CURSORS.decode(text, bound_to="list")
        agree(_CURSORS.encode(position, bound_to="list"), text)


def read_token(data: bytes) -> None:
    """Parse ``Authorization`` fields; no input is signed, so none may be accepted."""
    values = data.decode("latin-1").split("\n")
    with suppress(TokenMissing, TokenInvalid):
        token = token_among(values)
        raise Disagreement(tokens(_app()).decode(token, Kind.ACCESS))


def read_json(data: bytes) -> None:
    """Parse a JSON body; accepted input means the same to the standard library."""
    try:
        value = parse_json(data)
    except MalformedRequest as error:
        problem(error, "")
        return
    agree(repr(value), repr(json.loads(data)))
    try:
        ProductCreate.model_validate(value)
    except ValidationError as error:
        problem(InvalidRequest(errors=field_errors(error)), "")


def read_query(data: bytes) -> None:
    """Validate a query string; an accepted one yields a selection and a cursor scope."""
    given = dict(
        pair.split("=", 1) for pair in data.decode(errors="replace").split("&") if "=" in pair
    )
    try:
        query = ListQuery.model_validate(given)
    except ValidationError as error:
        problem(InvalidRequest(errors=field_errors(error, in_query=True)), "")
        return
    selection = Selection.of(query, user_id=query.user_id)
    agree(selection.bound_to("/"), Selection.of(query, user_id=query.user_id).bound_to("/"))
    for price in (query.min_price, query.max_price):
        if price is not None and not math.isfinite(price):
            raise Disagreement(price)


MOST_PIECES = 64


def read_lines(form: Format, data: bytes) -> None:
    """Parse a bulk file whole and in pieces; both outcomes are equal.

    The first byte sets the size of the pieces; their number is bounded, to keep inputs fast.
    """
    size, text = (data[0] if data else 0) + 1, data[1:]
    size = max(size, len(text) // MOST_PIECES)
    agree(_lines_of(form, [text]), _lines_of(form, _pieces_of(text, size)))


def _pieces_of(text: bytes, size: int) -> list[bytes]:
    return [text[start : start + size] for start in range(0, len(text), size)] or [b""]


def _lines_of(form: Format, pieces: Sequence[bytes]) -> object:
    """Return the result for each line, or the error that rejects the file."""
    reader = form.reader()
    found: list[Parsed] = []
    try:
        for number, piece in enumerate(pieces):
            for line in reader.read(piece, is_last=number == len(pieces) - 1):
                parsed = line() if callable(line) else line
                if parsed is not None:
                    found.append(parsed)
    except LinesInvalid as error:
        if not is_utf_8(b"".join(pieces)):
            # A text in another encoding is refused for that or for its header, whichever is found
            # first; imports read enough at once to find the encoding first.
            return "refused"
        return error.detail, error.members
    for each in found:
        if isinstance(each, ParsedProduct):
            ProductCreate(name=each.name, description=each.description, price=each.price)
    return found


def is_utf_8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def read_head(data: bytes) -> None:
    """Parse a plain request; accepted input means the same to h11."""
    message = request_parser.parse(data)
    if message is None:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    request = connection.next_event()
    if not isinstance(request, h11.Request):
        raise Disagreement(request)
    agree(message.method, request.method)
    path, _, query = request.target.partition(b"?")
    agree((message.path, message.query), (path, query))
    agree(message.fields, list(request.headers))
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    agree(message.body, body)
    agree(connection.trailing_data, (b"", False))


def read_accept(data: bytes) -> None:
    """Negotiate a media type; the result is one of those offered."""
    offered = (JSON, NDJSON, CSV_TYPE)
    best = best_of(offered, data.decode("latin-1"))
    if best is not None and best not in offered:
        raise Disagreement(best)


def read_conditions(data: bytes) -> None:
    """Parse entity tags and an idempotency key."""
    text = data.decode("latin-1")
    with suppress(ValueError):
        agree('"a"' in Tags(text), '"a"' in Tags(text))
    try:
        key = key_among(text.split("\n"))
    except InvalidRequest as error:
        problem(error, "")
    else:
        agree(key, unquoted(text))


def unquoted(text: str) -> str:
    """Return the content of a quoted string (RFC 8941, section 4.2.5); other text as it is."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    content, characters = [], iter(text[1:-1])
    for character in characters:
        if character == "\\":
            character = next(characters, "")
            if character not in {'"', "\\"}:
                return text
        elif character == '"':
            return text
        content.append(character)
    return "".join(content)


def read_account(data: bytes) -> None:
    """Validate names, addresses and passwords; normalizing an accepted name is idempotent."""
    parts = [*data.decode(errors="replace").split("\n", 2), "", "", ""]
    username, email, password = parts[:3]
    for schema, fields in (
        (SignUp, {"username": username, "email": email, "password": password}),
        (LogIn, {"username": username, "password": password}),
    ):
        try:
            schema.model_validate(fields)
        except ValidationError as error:
            problem(InvalidRequest(errors=field_errors(error)), "")
        else:
            folded = fold(username)
            agree(fold(folded), folded)


def find_words(data: bytes) -> None:
    """Tokenize a text; words are ASCII, of bounded length, and matched by a search for the text."""
    text = data.decode(errors="replace").replace("\0", "")
    indexed = text_of(text, None)
    if not indexed.isascii():
        raise Disagreement(indexed)
    if any(len(token) > MAX_TOKEN_LENGTH for token in tokens_of(indexed, 1).split()):
        raise Disagreement(indexed)
    for term in terms_of(text):
        if term not in indexed:
            raise Disagreement((term, indexed))


def fail_when_planted(data: bytes) -> None:
    """Fail on one word: negative control of the search for findings."""
    if data[:1] == b"F" and data[1:2] == b"U" and data[2:3] == b"Z":
        raise RuntimeError("planted")


def take_quadratic_time(data: bytes) -> None:
    """Compare every pair of bytes: negative control of the bound on CPU time.

    Its seed, 10,000 bytes, takes seconds on any processor, so that the control does not depend on
    the machine's speed.
    """
    if len(data) > 2_000:
        sum(first == second for first in data for second in data)


_LONG = b"name,price\n" + b"a,1\n" * 1_000

TARGETS: dict[str, Target] = {
    "cursor": Target(
        read_cursor,
        [_CURSORS.encode([7], bound_to="list").encode(), b"", b"AAAA", b"====", b"\xff"],
    ),
    "token": Target(
        read_token,
        [
            b"Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6IngifQ.eyJzdWIiOiIxIn0.AAAA",
            b"bearer a.b.c",
            b"Basic eA==",
            b"Bearer x\nBearer y",
        ],
    ),
    "json": Target(
        read_json,
        [
            b'{"name":"Lamp","price":1.5,"description":null}',
            b'{"name":"\\ud83d\\ude00","price":1e300,"x":[[{}]]}',
            b'\xef\xbb\xbf{"a":1,"a":2}',
            b'{"price":NaN,"name":"\\u0000"}',
        ],
    ),
    "query": Target(
        read_query,
        [
            b"limit=5&sort=-price&min_price=1e2&max_price=3.5",
            b"q=desk lam&ids=1,2,3&fields=id,name&total=true&user_id=7",
            b"cursor=AAAA&limit=0",
        ],
    ),
    "csv": Target(
        partial(read_lines, FORMATS[CSV_TYPE]),
        [
            b'\x05name,price,description\nLamp,1.5,"a ""b""\nc"\nRug,x,\n',
            b"\x01\xef\xbb\xbfname,price\r\n'=1,2\r\n",
            b"\xff" + _LONG,
            b'\x03name,price\n"Lamp,1\nRug,2\n',
        ],
    ),
    "ndjson": Target(
        partial(read_lines, FORMATS[NDJSON]),
        [
            b'\x05{"name":"Lamp","price":1}\n\n{"name":"Rug"}\n[1]\n',
            b'\x01{"name":"\\"","price":-0.0,"id":7}\r\n{"name":"a","name":"b","price":1}',
            b"\xff" + b"{}\n" * 500,
        ],
    ),
    "head": Target(
        read_head,
        [
            b"GET /api/products?limit=5 HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
            b"POST /api/products HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nX:\t b \t\r\n\r\n",
        ],
    ),
    "accept": Target(
        read_accept,
        [b"application/json;q=0.5, text/csv", b'a/b;x="y,application/json";q=1, */*;q=0'],
    ),
    "conditions": Target(
        read_conditions,
        [b'W/"a", "b,c" ,"\x80"', b"*", b'"', b"key"],
    ),
    "account": Target(
        read_account,
        [
            b"ada\nada@example.com\ncorrect horse",
            "\uff41\uff44\uff41\nÅ@例え.jp\na\u0301\u0327".encode(),
            "a\u200db\n\u202ex@y\n".encode(),
        ],
    ),
    "words": Target(
        find_words,
        [
            b"Desk lamp, 24 W",
            "Straße ÉCOLE ﬁ 東京タワー ภาษาไทย".encode(),
            "a\u0301\u0327\u1100\u1161\u11a8 q qq".encode(),
        ],
    ),
    "planted-failure": Target(fail_when_planted, [b"x"]),
    "planted-slowness": Target(take_quadratic_time, [b"x" * 10_000]),
}
CONTROLS = ("planted-failure", "planted-slowness")
