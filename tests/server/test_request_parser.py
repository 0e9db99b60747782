"""The fast parser reads plain request heads like the general parser, and declines all others."""

import asyncio

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.server.request_parser import MAX_HEAD_BYTES, ResponseBuffer, parse

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
    return found.method, target, found.fields, found.body


def head(*lines: bytes) -> bytes:
    return b"\r\n".join([b"GET /api/products HTTP/1.1", *lines, b"", b""])


def post(body: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([b"POST /api/products HTTP/1.1", b"Host: a", *lines, b"", body])


class TestParse:
    @given(
        st.sampled_from([b"GET", b"POST"]),
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
        ],
    )
    def test_typical_client_headers_are_parsed(self, fields: tuple[bytes, ...]) -> None:
        data = head(b"Host: catalog:8000", *fields)

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
            head(b"Host: a", b"Content-Length: 0"),
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
            head(b"Host: a").replace(b"GET", b"POST"),
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


class TestResponseBuffer:
    async def test_response_is_written_as_one_piece(self) -> None:
        answer = ResponseBuffer(is_last=False)
        headers = [(b"content-length", b"4"), (b"a", b"b")]
        await answer.take({"type": "http.response.start", "status": 200, "headers": headers})
        await answer.take({"type": "http.response.body", "body": b"ab", "more_body": True})
        await answer.take({"type": "http.response.body", "body": b"cd"})

        begin, _, end = b"".join(answer.parts).partition(b"\r\ndate: ")
        assert begin == b"HTTP/1.1 200 \r\ncontent-length: 4\r\na: b"
        assert end.endswith(b" GMT\r\n\r\nabcd")
        assert not answer.is_last

    @pytest.mark.parametrize("body", [b"", b"{}"])
    async def test_receive_returns_the_body_and_then_blocks_until_the_response_is_complete(
        self, body: bytes
    ) -> None:
        answer = ResponseBuffer(body, is_last=False)
        first = await answer.receive()
        waiting = asyncio.create_task(answer.receive())
        await answer.take({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0)
        assert not waiting.done()

        await answer.take({"type": "http.response.body"})

        assert first == {"type": "http.request", "body": body, "more_body": False}
        assert await waiting == await answer.receive() == {"type": "http.disconnect"}

    async def test_incomplete_response_raises(self) -> None:
        answer = ResponseBuffer(is_last=False)
        await answer.take({"type": "http.response.start", "status": 200, "headers": []})

        with pytest.raises(RuntimeError):
            _ = answer.parts

    async def test_application_can_close_the_connection(self) -> None:
        answer = ResponseBuffer(is_last=False)
        headers = [(b"connection", b"close")]
        await answer.take({"type": "http.response.start", "status": 200, "headers": headers})
        await answer.take({"type": "http.response.body"})

        assert answer.is_last
        assert b"".join(answer.parts).count(b"connection: close") == 1

    @pytest.mark.parametrize("value", [b"a\r\nb: c", b"a\nb", b"a\rb"])
    async def test_header_value_with_a_line_break_is_refused(self, value: bytes) -> None:
        answer = ResponseBuffer(is_last=False)
        headers = [(b"location", value)]

        with pytest.raises(ValueError, match="line break"):
            await answer.take({"type": "http.response.start", "status": 200, "headers": headers})
