"""Raw requests that are ambiguous or malformed, and a strict parser of the responses."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

INNER_ID = "inner-request"
"""Id of the request that is smuggled in another's body."""

INNER = f"GET /livez HTTP/1.1\r\nHost: catalog\r\nX-Request-ID: {INNER_ID}\r\n\r\n".encode()

INJECTED = "x-injected"

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9]) [\x20-\x7e]*")
_FIELD = re.compile(rb"([\w!#$%&'*+\-.^`|~]+):[ \t]*([\x20-\x7e\t]*)")


class Malformed(AssertionError):
    """A response that is not a well-formed HTTP/1.1 message."""


class Smuggled(AssertionError):
    """A response to a request that was smuggled in a body."""


class Injected(AssertionError):
    """A client's value that appears as a header field or line of its own."""


class Broken(AssertionError):
    """A status that the probe does not allow."""


@dataclass(frozen=True, slots=True)
class Message:
    """A response.

    Attributes:
        fields: names in lower case with their values, in order.
    """

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]


def messages(data: bytes, methods: Sequence[str]) -> list[Message]:
    """Parse all responses of a closed connection.

    Args:
        data: received bytes.
        methods: of the requests, which decide whether responses have bodies (RFC 9112,
            section 6.3); GET is assumed for further responses.

    Raises:
        Malformed: the bytes are not a series of complete responses.
    """
    found: list[Message] = []
    finals = 0
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            raise Malformed(f"half a head: {head[:200]!r}")
        status_line, *lines = head.split(b"\r\n")
        if (status := _STATUS_LINE.fullmatch(status_line)) is None:
            raise Malformed(f"no status line: {status_line[:200]!r}")
        fields = []
        for line in lines:
            if (field := _FIELD.fullmatch(line)) is None:
                raise Malformed(f"no field: {line[:200]!r}")
            fields.append((field[1].decode().lower(), field[2].decode().strip()))
        code = int(status[1])
        method = methods[finals] if finals < len(methods) else "GET"
        body, data = _body(code, dict(fields), method, rest)
        found.append(Message(code, fields, body))
        finals += code >= 200
    return found


def _body(status: int, fields: dict[str, str], method: str, rest: bytes) -> tuple[bytes, bytes]:
    if status < 200 or status in {204, 304} or method == "HEAD":
        return b"", rest
    if "transfer-encoding" in fields:
        return _chunks(rest)
    if "content-length" not in fields:
        return rest, b""
    length = int(fields["content-length"])
    if len(rest) < length:
        raise Malformed(f"{len(rest)} of {length} bytes of a body")
    return rest[:length], rest[length:]


def _chunks(rest: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, end, rest = rest.partition(b"\r\n")
        if not end or re.fullmatch(rb"[0-9a-fA-F]+", size) is None:
            raise Malformed(f"no chunk: {size[:50]!r}")
        length = int(size, 16)
        if rest[length : length + 2] != b"\r\n":
            raise Malformed("half a chunk")
        body += rest[:length]
        rest = rest[length + 2 :]
        if length == 0:
            return body, rest


@dataclass(frozen=True, slots=True)
class Probe:
    """Bytes to send on a fresh connection.

    Attributes:
        name: what is unusual about the bytes.
        data: the bytes.
        most: maximum number of final responses; fewer are allowed if the connection is closed.
        statuses: allowed statuses; any below 500 if empty.
        methods: of the requests in ``data``.
        is_bare: whether a body without a head (HTTP/0.9) is a valid response.
    """

    name: str
    data: bytes
    most: int = 1
    statuses: frozenset[int] = frozenset()
    methods: tuple[str, ...] = ("GET",)
    is_bare: bool = False


def judge(probe: Probe, data: bytes) -> list[Message]:
    """Return the final responses to a probe.

    Raises:
        Malformed: they are not well-formed.
        Smuggled: there are more responses than requests.
        Injected: a value of the probe appears as a header.
        Broken: a status is not allowed.
    """
    if probe.is_bare and not data.startswith(b"HTTP/"):
        return []
    found = messages(data, probe.methods)
    finals = [message for message in found if message.status >= 200]
    for message in found:
        if message.values(INJECTED):
            raise Injected(f"{probe.name}: {message.fields}")
        if INNER_ID in message.values("x-request-id"):
            raise Smuggled(f"{probe.name}: the inner request was answered {message.status}")
        # RFC 9110, section 15.2.2: a 101 would hand the connection over to another protocol.
        if message.status == 101:
            raise Broken(f"{probe.name}: the protocol was switched")
    if len(finals) > probe.most:
        raise Smuggled(f"{probe.name}: {len(finals)} responses")
    for message in finals:
        allowed = probe.statuses or range(200, 500)
        # RFC 9110, sections 15.6.2 and 15.6.6: not implementing a method or version is no failure.
        if message.status not in allowed and message.status not in {501, 505}:
            raise Broken(f"{probe.name}: {message.status} {message.body[:200]!r}")
    return finals


async def send(url: str, data: bytes, *, quiet: float = 0.5, within: float = 10.0) -> bytes:
    """Send bytes on a new connection; return what arrives until it is closed or quiet.

    Args:
        url: of the server.
        data: bytes to send.
        quiet: seconds without a further byte after which the response counts as complete.
        within: seconds to wait for the first byte.
    """
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    found = b""
    try:
        writer.write(data)
        # Bytes received before a reset count, too.
        while piece := await asyncio.wait_for(reader.read(65536), quiet if found else within):
            found += piece
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return found


def request(
    *lines: bytes, method: bytes = b"GET", target: bytes = b"/api/products?limit=1"
) -> bytes:
    """Return a request head; adds Host unless the lines have one."""
    if not any(line.lower().startswith(b"host") for line in lines):
        lines = (b"Host: catalog", *lines)
    return b"\r\n".join([b"%b %b HTTP/1.1" % (method, target), *lines, b"", b""])


def post(*lines: bytes, body: bytes = b"", target: bytes = b"/api/products") -> bytes:
    """Return a POST with a JSON body; the lines are sent verbatim."""
    return request(b"Content-Type: application/json", *lines, method=b"POST", target=target) + body


REFUSED = frozenset({400, 408, 411, 413, 414, 415, 417, 431})
"""Statuses that reject the message itself."""

LEN_INNER = len(INNER)
CHUNKED_INNER = b"0\r\n\r\n" + INNER
CL_OF_ALL = b"Content-Length: %d" % len(CHUNKED_INNER)
TE = b"Transfer-Encoding: chunked"


def _smuggling() -> list[Probe]:
    conflicting = {
        "length and chunked": (CL_OF_ALL, TE),
        "chunked and length": (TE, CL_OF_ALL),
        "length and obscured chunked": (CL_OF_ALL, b"Transfer-Encoding: xchunked"),
        "length and chunked after a tab": (CL_OF_ALL, b"Transfer-Encoding:\tchunked"),
        "length and chunked, blank before the colon": (CL_OF_ALL, b"Transfer-Encoding : chunked"),
        "length and chunked, twice": (CL_OF_ALL, TE, b"Transfer-Encoding: identity"),
        "length and identity": (CL_OF_ALL, b"Transfer-Encoding: identity"),
        "length and quoted chunked": (CL_OF_ALL, b'Transfer-Encoding: "chunked"'),
        "length and chunked in a list": (CL_OF_ALL, b"Transfer-Encoding: gzip, chunked"),
        "length and chunked behind a comma": (CL_OF_ALL, b"Transfer-Encoding: , chunked"),
        "length and chunked in capitals": (CL_OF_ALL, b"Transfer-Encoding: CHUNKED"),
        "length and chunked with vertical tab": (CL_OF_ALL, b"Transfer-Encoding:\x0bchunked"),
        "length and chunked folded": (CL_OF_ALL, b"Transfer-Encoding:\r\n chunked"),
        "length and chunked in a folded other": (CL_OF_ALL, b"X: y\r\n Transfer-Encoding: chunked"),
        "length and chunked behind a bare line feed": (
            CL_OF_ALL,
            b"X: y\nTransfer-Encoding: chunked",
        ),
        "length and chunked behind a bare return": (CL_OF_ALL, b"X: y\rTransfer-Encoding: chunked"),
        "length and chunked with NUL": (CL_OF_ALL, b"Transfer-Encoding: chunked\x00"),
        "chunked, gzip last": (b"Transfer-Encoding: chunked, gzip",),
        "chunked twice": (TE, TE),
        "chunked chunked": (b"Transfer-Encoding: chunked, chunked",),
    }
    probes = [
        Probe(f"smuggling: {name}", post(*lines, body=CHUNKED_INNER), methods=("POST",))
        for name, lines in conflicting.items()
    ]
    whole = b"Content-Length: %d" % LEN_INNER
    lengths = {
        "no length": (),
        "lengths 0 and all": (b"Content-Length: 0", whole),
        "lengths all and 0": (whole, b"Content-Length: 0"),
        "lengths in a list": (b"Content-Length: 0, %d" % LEN_INNER,),
        "length with plus": (b"Content-Length: +%d" % LEN_INNER,),
        "negative length": (b"Content-Length: -1",),
        "length in hexadecimal": (b"Content-Length: 0x%x" % LEN_INNER,),
        "length with underscore": (b"Content-Length: 1_0",),
        "length with blanks inside": (b"Content-Length: 1 0",),
        "length in other digits": ("Content-Length: ٤٢".encode(),),
        "length of 2^64": (b"Content-Length: 18446744073709551616",),
        "length of 5,000 digits": (b"Content-Length: " + b"1" * 5000,),
        "empty length": (b"Content-Length:",),
        "length before a blank": (b"Content-Length : %d" % LEN_INNER,),
        "folded length": (b"Content-Length:\r\n %d" % LEN_INNER,),
        "length behind a bare return": (b"X: y\rContent-Length: %d" % LEN_INNER,),
    }
    for name, lines in lengths.items():
        # Without a length the inner bytes are a pipelined request, and a second response is right.
        is_own = name == "no length"
        data = post(*lines, body=INNER.replace(INNER_ID.encode(), b"own") if is_own else INNER)
        probes.append(
            Probe(
                f"lengths: {name}",
                data,
                most=2 if is_own else 1,
                statuses=frozenset() if is_own else REFUSED | {401},
                methods=("POST", "GET"),
            )
        )
    chunked = {
        "size with plus": b"+5\r\nhello\r\n",
        "size with blank": b"5 \r\nhello\r\n",
        "size in 0x": b"0x5\r\nhello\r\n",
        "negative size": b"-1\r\nhello\r\n",
        "size of 17 digits": b"00000000000000005\r\nhello\r\n",
        "huge size": b"FFFFFFFFFFFFFFFF\r\nhello\r\n",
        "extension": b"5;a=b\r\nhello\r\n",
        "long extension": b"5;" + b"a" * 20_000 + b"\r\nhello\r\n",
        "extension with a line feed": b"5;a\nb\r\nhello\r\n",
        "line feed alone": b"5\nhello\n",
        "no end of data": b"5\r\nhelloworld\r\n",
        "chunk without CRLF": b"5\r\nhello",
        "not a number": b"zz\r\nhello\r\n",
        "empty size": b"\r\nhello\r\n",
    }
    probes += [
        Probe(
            f"chunks: {name}",
            post(TE, body=body + CHUNKED_INNER.replace(INNER, b"")),
            methods=("POST",),
        )
        for name, body in chunked.items()
    ]
    probes += [
        Probe(
            "chunks: trailer fields",
            post(TE, body=b"2\r\n{}\r\n0\r\nX-Request-ID: inner-request\r\nX-Injected: 1\r\n\r\n"),
            methods=("POST",),
        ),
        Probe("body: of a GET", request(b"Content-Length: %d" % LEN_INNER) + INNER),
        Probe(
            "body: of a chunked GET", request(TE) + b"%x\r\n" % LEN_INNER + INNER + b"\r\n0\r\n\r\n"
        ),
        Probe(
            "body: of a HEAD",
            request(b"Content-Length: %d" % LEN_INNER, method=b"HEAD") + INNER,
            methods=("HEAD",),
        ),
        Probe(
            "body: of a DELETE",
            request(b"Content-Length: %d" % LEN_INNER, method=b"DELETE", target=b"/api/products/1")
            + INNER,
            methods=("DELETE",),
        ),
        Probe(
            "body: of a refused one",
            post(b"Content-Length: %d" % LEN_INNER, b"Expect: 100-continue", body=INNER),
            methods=("POST",),
        ),
        Probe(
            "body: of what is not found",
            post(b"Content-Length: %d" % LEN_INNER, body=INNER, target=b"/nothing"),
            methods=("POST",),
        ),
    ]
    return probes


def _framing() -> list[Probe]:
    plain = request()
    long_name = b"a" * 9000
    return [
        Probe("lines: bare line feeds", plain.replace(b"\r\n", b"\n")),
        Probe(
            "lines: a bare return at the end of each", plain.replace(b"\r\n", b"\r") + b"\r\n\r\n"
        ),
        Probe("lines: blank ones before", b"\r\n\r\n" + plain),
        Probe("lines: only blank ones", b"\r\n" * 5000, statuses=REFUSED),
        Probe("fields: folded", request(b"X-Folded: a\r\n b"), statuses=REFUSED | {200}),
        Probe(
            "fields: folded first",
            b"GET / HTTP/1.1\r\n Host: catalog\r\n\r\n",
            statuses=REFUSED | {200},
        ),
        Probe("fields: blank before the colon", request(b"X-Blank : a"), statuses=REFUSED | {200}),
        Probe("fields: blank in the name", request(b"X Blank: a"), statuses=REFUSED),
        Probe("fields: without a colon", request(b"nothing"), statuses=REFUSED | {200}),
        Probe("fields: without a name", request(b": a"), statuses=REFUSED | {200}),
        Probe("fields: NUL in a value", request(b"X-Nul: a\x00b"), statuses=REFUSED),
        Probe("fields: NUL in a name", request(b"X\x00Nul: a"), statuses=REFUSED),
        Probe("fields: bare return in a value", request(b"X-Return: a\rX-Injected: 1")),
        Probe("fields: bare line feed in a value", request(b"X-Feed: a\nX-Injected: 1")),
        Probe("fields: control characters", request(b"X-Control: \x01\x02\x7f")),
        Probe("fields: not ASCII", request("X-Latin: é".encode("latin-1"), "X-Utf8: é".encode())),
        Probe("fields: 1,000", request(*(b"X-%d: a" % n for n in range(1000)))),
        Probe(
            "fields: 100,000 bytes in one", request(b"X-Long: " + b"a" * 100_000), statuses=REFUSED
        ),
        Probe(
            "fields: a name of 9,000 bytes", request(long_name + b": a"), statuses=REFUSED | {200}
        ),
        Probe(
            "fields: 2 MB",
            request(*(b"X-%d: %b" % (n, b"a" * 1000) for n in range(2000))),
            statuses=REFUSED,
        ),
        Probe("host: none", b"GET / HTTP/1.1\r\n\r\n", statuses=REFUSED),
        Probe("host: two", request(b"Host: catalog", b"Host: other"), statuses=REFUSED),
        Probe("host: with a path", request(b"Host: catalog/../x"), statuses=REFUSED),
        Probe("host: with a line feed", request(b"Host: a\nX-Injected: 1")),
        Probe("host: empty", request(b"Host:"), statuses=REFUSED),
        Probe(
            "target: 20,000 bytes", request(target=b"/" + b"a" * 20_000), statuses=REFUSED | {404}
        ),
        Probe(
            "target: 20,000 bytes of query",
            request(target=b"/api/products?q=" + b"a" * 20_000),
            statuses=REFUSED | {422},
        ),
        Probe("target: absolute", request(target=b"http://catalog/api/products?limit=1")),
        Probe("target: absolute, other host", request(target=b"http://other/api/products?limit=1")),
        Probe("target: asterisk", request(method=b"OPTIONS", target=b"*")),
        Probe("target: authority", request(method=b"CONNECT", target=b"catalog:80")),
        Probe("target: with a fragment", request(target=b"/livez#a")),
        Probe("target: with a blank", request(target=b"/livez a")),
        Probe("target: with a tab", request(target=b"/livez\ta")),
        Probe("target: NUL", request(target=b"/livez\x00")),
        Probe("target: encoded NUL", request(target=b"/livez%00")),
        Probe("target: bytes that are not UTF-8", request(target=b"/%ff%fe?q=%ff")),
        Probe("target: broken escapes", request(target=b"/%zz?q=%")),
        Probe("target: up and up", request(target=b"/../../../../etc/passwd")),
        Probe("target: encoded up", request(target=b"/%2e%2e/%2e%2e/etc/passwd")),
        Probe("target: two slashes", request(target=b"//other/api/products")),
        Probe("target: metrics, encoded", request(target=b"/%6detrics")),
        Probe("method: none", b" / HTTP/1.1\r\nHost: catalog\r\n\r\n", statuses=REFUSED),
        Probe("method: unknown", request(method=b"BREW"), statuses=REFUSED | {404, 405}),
        Probe("method: in small letters", request(method=b"get"), statuses=REFUSED | {405}),
        Probe("method: 10,000 letters", request(method=b"A" * 10_000), statuses=REFUSED | {405}),
        Probe("method: TRACE", request(b"X-Secret: a", method=b"TRACE"), statuses=REFUSED | {405}),
        # nginx answers in HTTP/0.9: the body only, without a head.
        Probe("version: none", b"GET /livez\r\n", is_bare=True),
        Probe("version: 0.9", b"GET / HTTP/0.9\r\n\r\n"),
        Probe("version: 1.2", plain.replace(b"HTTP/1.1", b"HTTP/1.2")),
        Probe("version: 3.7", plain.replace(b"HTTP/1.1", b"HTTP/3.7"), statuses=REFUSED),
        Probe("version: garbage", plain.replace(b"HTTP/1.1", b"JUNK/1.1"), statuses=REFUSED),
        Probe(
            "other: TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 300,
            statuses=REFUSED,
        ),
        Probe(
            "other: PROXY protocol", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + plain, statuses=REFUSED
        ),
        Probe(
            "http2: prior knowledge",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
            statuses=REFUSED,
        ),
        Probe(
            "http2: upgrade",
            request(
                b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"
            ),
        ),
        Probe(
            "http2: upgrade with a body",
            post(
                *(
                    b"Connection: Upgrade, HTTP2-Settings",
                    b"Upgrade: h2c",
                    b"HTTP2-Settings: AAMAAABk",
                ),
                b"Content-Length: %d" % LEN_INNER,
                body=INNER,
            ),
            methods=("POST",),
        ),
        Probe(
            "other: upgrade to a web socket",
            request(
                *(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            ),
        ),
        Probe("pipeline: two", plain * 2, most=2),
        Probe("pipeline: 50", plain * 50, most=50, methods=("GET",) * 50),
        Probe(
            "pipeline: mixed",
            request(method=b"HEAD") + plain + post(b"Content-Length: 2", body=b"{}") + plain,
            most=4,
            methods=("HEAD", "GET", "POST", "GET"),
        ),
        Probe("pipeline: behind a close", request(b"Connection: close") + INNER, most=1),
        Probe(
            "pipeline: behind an error", request(b"Host: a", b"Host: b") + INNER, statuses=REFUSED
        ),
        Probe("expect: unknown", request(b"Expect: a-miracle"), statuses=frozenset({417, 200})),
        Probe("connection: names a field", request(b"Connection: close, Authorization, Host")),
    ]


EVIL = "a\r\nX-Injected: 1\r\n\r\nHTTP/1.1 200 OK\r\nX-Injected: 1\r\n\r\n"


def _reflected() -> list[Probe]:
    """Return probes that put line breaks into each value that responses reflect."""
    encoded = {
        "percent": quote(EVIL).encode(),
        "twice": quote(quote(EVIL)).encode(),
        "line separators": quote("a\u0085X-Injected: 1\u2028X-Injected: 1").encode(),
        # The low bytes of these code points are CR and LF, which matters if characters are cut.
        "cut": quote("a\u560d\u560aX-Injected: 1").encode(),
    }
    parameters = (
        *("cursor", "q", "sort", "fields", "ids", "limit", "format", "key", "user_id", "min_price"),
        *("total", "since", "unknown"),
    )
    probes = []
    for how, value in encoded.items():
        probes.append(Probe(f"reflected: path, {how}", request(target=b"/" + value)))
        probes.append(Probe(f"reflected: id, {how}", request(target=b"/api/products/" + value)))
        probes.append(
            Probe(
                f"reflected: trailing slash, {how}",
                request(target=b"/api/products/" + value + b"/"),
            )
        )
        probes += [
            Probe(
                f"reflected: {name}, {how}",
                request(target=b"/api/products?%b=%b" % (name.encode(), value)),
            )
            for name in parameters
        ]
        probes.append(
            Probe(
                f"reflected: name of a parameter, {how}",
                request(target=b"/api/products?%b=1" % value),
            )
        )
        probes.append(
            Probe(
                f"reflected: feed, {how}", request(target=b"/api/products/changes?since=" + value)
            )
        )
    names = (
        *(
            "X-Request-ID",
            "Idempotency-Key",
            "Authorization",
            "Origin",
            "If-None-Match",
            "If-Match",
        ),
        *("Accept", "Accept-Encoding", "Accept-Language", "Content-Type", "Last-Event-ID", "Range"),
        *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Prefix", "X-Forwarded-Host"),
        *(
            "Access-Control-Request-Headers",
            "Access-Control-Request-Method",
            "User-Agent",
            "Cookie",
        ),
        *("Cache-Control", "traceparent", "Forwarded", "Prefer", "Referer"),
    )
    breaks = {
        "bare return": b"a\rX-Injected: 1",
        "bare line feed": b"a\nX-Injected: 1",
        "percent": quote(EVIL).encode(),
        "NEL": "a\u0085X-Injected: 1".encode(),
        "quoted": b'"a\\\r\\\nX-Injected: 1"',
        "cut": "a\u560d\u560aX-Injected: 1".encode(),
    }
    for name in names:
        for how, value in breaks.items():
            line = name.encode() + b": " + value
            probes.append(Probe(f"reflected: {name}, {how}", request(line)))
            if how in {"percent", "bare return"}:
                probes.append(
                    Probe(
                        f"reflected: {name} of a write, {how}",
                        post(line, b"Content-Length: 2", body=b"{}"),
                        methods=("POST",),
                    )
                )
                probes.append(
                    Probe(
                        f"reflected: {name} of OPTIONS, {how}",
                        request(line, method=b"OPTIONS"),
                        methods=("OPTIONS",),
                    )
                )
    return probes


PROBES = [*_smuggling(), *_framing(), *_reflected()]
