"""The fast parser reads plain request heads like the general parser, and declines all others."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.fastpath import request_parser
from catalog.fastpath.request_parser import MAX_HEAD_BYTES, parse

Fields = list[tuple[bytes, bytes]]

TOKENS = st.text("abcXYZ019!#$&'*+-.^_`|~", min_size=1, max_size=8).map(str.encode)
VALUES = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=20).map(
    lambda text: text.encode("latin-1")
)
NAMES = st.one_of(
    TOKENS,
    st.sampled_from([b"Accept", b"Host", b"Connection", b"Content-Length", b"Upgrade", b"TE"]),
)
SPACES = st.text(" \t", max_size=2).map(str.encode)
TARGETS = st.text("/aZ0-._~!$&'()*+,;=:@?%# ", max_size=12).map(lambda text: b"/" + text.encode())


def by_h11(data: bytes) -> tuple[bytes, bytes, Fields, bytes] | None:
    """Return one whole request as the general parser reads it, or None."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    try:
        request = connection.next_event()
        parts = [connection.next_event()]
        while isinstance(parts[-1], h11.Data):
            parts.append(connection.next_event())
    except h11.RemoteProtocolError:
        return None
    if not isinstance(request, h11.Request) or not isinstance(parts.pop(), h11.EndOfMessage):
        return None
    if connection.trailing_data[0]:
        return None
    body = b"".join(bytes(part.data) for part in parts)  # type: ignore[union-attr]
    return request.method, request.target, list(request.headers), body


def by_us(data: bytes) -> tuple[bytes, bytes, Fields, bytes] | None:
    """Return a request as the fast parser reads it, which drops a ``?`` without a query."""
    found = parse(data)
    if found is None:
        return None
    has_query = b"?" in data.split(b" ")[1]
    target = found.path + b"?" + found.query if has_query else found.path
    return found.method, target, list(found.fields), found.body


def head(*lines: bytes) -> bytes:
    return b"\r\n".join([b"GET /api/products HTTP/1.1", *lines, b"", b""])


def post(body: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([b"POST /api/products HTTP/1.1", b"Host: a", *lines, b"", body])


class TestParse:
    @given(
        st.sampled_from([b"GET", b"POST", b"PATCH", b"DELETE"]),
        TARGETS,
        st.lists(st.tuples(NAMES, SPACES, VALUES, SPACES), max_size=5),
        st.none() | st.integers(0, 12),
        st.binary(max_size=12),
    )
    def test_parsed_request_equals_that_of_the_general_parser(
        self,
        method: bytes,
        target: bytes,
        fields: list[tuple[bytes, bytes, bytes, bytes]],
        length: int | None,
        body: bytes,
    ) -> None:
        lines = [name + b":" + left + value + right for name, left, value, right in fields]
        if length is not None:
            lines.append(b"Content-Length: %d" % length)
        start = method + b" " + target + b" HTTP/1.1"
        data = b"\r\n".join([start, b"Host: catalog", *lines, b"", body])

        found = by_us(data)

        assert found is None or found == by_h11(data)

    @given(st.binary(max_size=200))
    def test_arbitrary_bytes_are_never_misread(self, data: bytes) -> None:
        for message in (head(b"Host: catalog", data), post(data), post(b"", data)):
            found = by_us(message)

            assert found is None or found == by_h11(message)

    @pytest.mark.parametrize(
        "fields",
        [
            (),
            (b"Accept: */*", b"accept-encoding:gzip, br", b"X-Request-ID:\t7 "),
            (b"Connection: keep-alive", b"User-Agent: caf\xe9", b"Empty:"),
            (b"Content-Length: 0",),
        ],
    )
    def test_typical_client_headers_are_parsed(self, fields: tuple[bytes, ...]) -> None:
        data = head(b"Host: catalog:8000", *fields)

        found = by_us(data)

        assert found is not None
        assert found == by_h11(data)

    @pytest.mark.parametrize("method", [b"POST", b"PATCH", b"DELETE"])
    def test_request_without_a_body_is_parsed(self, method: bytes) -> None:
        data = head(b"Host: a").replace(b"GET", method)

        found = by_us(data)

        assert found is not None
        assert found == by_h11(data)

    @pytest.mark.parametrize("body", [b"", b"{}", b"\r\n\r\n", b"\x00" * 40_000])
    def test_complete_body_is_parsed(self, body: bytes) -> None:
        data = post(body, b"Content-Type: application/json", b"Content-Length: %d" % len(body))

        found = by_us(data)

        assert found is not None
        assert found == by_h11(data)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            head(),
            head(b"Host: a", b"Host: b"),
            head(b"Host:"),
            head(b"Host: a b"),
            head(b"Host: a", b"Transfer-Encoding: chunked"),
            head(b"Host: a", b"Connection: close"),
            head(b"Host: a", b"Connection: Upgrade", b"Upgrade: h2c"),
            head(b"Host: a", b"Expect: 100-continue"),
            head(b"Host: a", b" folded: x"),
            head(b"Host: a", b"Name : x"),
            head(b"Host: a", b"Name: \x00"),
            head(b"Host: a", b"no colon"),
            head(b"Host: a") + b"x",
            head(b"Host: a") * 2,
            head(b"Host: a")[:-1],
            head(b"Host: a").replace(b"\r\n", b"\n"),
            head(b"Host: a").replace(b"GET", b"HEAD"),
            head(b"Host: a").replace(b"GET", b"get"),
            head(b"Host: a").replace(b"1.1", b"1.0"),
            head(b"Host: a").replace(b"1.1", b"2.0"),
            head(b"Host: a").replace(b"/api", b"/%61pi"),
            head(b"Host: a").replace(b"/api", b"http://a/api"),
            head(b"Host: a").replace(b" /", b"  /"),
            head(b"Host: a", b"Long: " + b"x" * MAX_HEAD_BYTES),
            head(b"Host: a").replace(b"GET", b"PUT"),
            post(b"{}"),
            post(b"{}", b"Content-Length: 1"),
            post(b"{}", b"Content-Length: 3"),
            post(b"{}", b"Content-Length: +2"),
            post(b"{}", b"Content-Length: 2, 2"),
            post(b"{}", b"Content-Length: 2", b"Content-Length: 2"),
            post(b"{}", b"Content-Length: 2", b"Transfer-Encoding: identity"),
            post(b"2\r\n{}\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"),
            post(b"{}", b"Content-Length: 2", b"Expect: 100-continue"),
        ],
    )
    def test_ambiguous_or_long_request_is_declined(self, data: bytes) -> None:
        assert parse(data) is None


class TestCache:
    HEAD = b"GET /a HTTP/1.1\r\nHost: catalog\r\nX: 1\r\n\r\n"

    @pytest.fixture(autouse=True)
    def _empty(self) -> None:
        request_parser._known_fields.cache_clear()

    def cached(self) -> int:
        return request_parser._known_fields.cache_info().currsize

    async def test_equal_fields_of_different_requests_are_parsed_once(self) -> None:
        first, other = parse(self.HEAD), parse(self.HEAD.replace(b"/a", b"/b?c=d"))

        assert first is not None
        assert other is not None
        assert (other.path, other.query) == (b"/b", b"c=d")
        assert first.fields is other.fields
        assert self.cached() == 1

    async def test_cached_length_is_compared_with_each_body(self) -> None:
        head = b"POST / HTTP/1.1\r\nHost: catalog\r\nContent-Length: 2\r\n\r\n"

        bodies = [parse(head + body) for body in (b"ab", b"a", b"abc", b"cd")]

        assert [found and found.body for found in bodies] == [b"ab", None, None, b"cd"]

    @pytest.mark.parametrize(
        "field",
        [b"Authorization: Bearer x", b"AUTHORIZATION: x", b"Cookie: a=b", b"X: " + b"a" * 2000],
    )
    async def test_secrets_and_long_fields_are_not_kept(self, field: bytes) -> None:
        found = parse(b"GET / HTTP/1.1\r\nHost: catalog\r\n%b\r\n\r\n" % field)

        assert found is not None
        assert self.cached() == 0

    async def test_cache_has_a_bound(self) -> None:
        for number in range(2 * request_parser._KNOWN):
            assert parse(b"GET / HTTP/1.1\r\nHost: catalog\r\nX: %d\r\n\r\n" % number) is not None

        assert self.cached() == request_parser._KNOWN
