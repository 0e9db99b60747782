"""Plain heads are read as the general parser reads them, and no others are read at all."""

import asyncio

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.server.heads import MAX_HEAD_BYTES, Answer, parse

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


def by_h11(data: bytes) -> tuple[bytes, Fields] | None:
    """What the general parser makes of it, if it is one whole GET without a body."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    try:
        request = connection.next_event()
        end = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(request, h11.Request) or not isinstance(end, h11.EndOfMessage):
        return None
    if request.method != b"GET" or connection.trailing_data[0]:
        return None
    return request.target, list(request.headers)


def head(*lines: bytes) -> bytes:
    return b"\r\n".join([b"GET /api/products HTTP/1.1", *lines, b"", b""])


class TestParse:
    @given(TARGETS, st.lists(st.tuples(NAMES, SPACES, VALUES, SPACES), max_size=5))
    def test_it_is_what_the_general_parser_reads(
        self, target: bytes, fields: list[tuple[bytes, bytes, bytes, bytes]]
    ) -> None:
        lines = [name + b":" + left + value + right for name, left, value, right in fields]
        data = b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: catalog", *lines, b"", b""])

        found = parse(data)

        if found is not None:
            path, query, headers = found
            whole = path + b"?" + query if b"?" in target else path
            assert by_h11(data) == (whole, headers)

    @given(st.binary(max_size=200))
    def test_no_bytes_are_misread(self, data: bytes) -> None:
        found = parse(head(b"Host: catalog", data))

        if found is not None:
            assert by_h11(head(b"Host: catalog", data)) == (found[0], found[2])

    @pytest.mark.parametrize(
        "fields",
        [
            (),
            (b"Accept: */*", b"accept-encoding:gzip, br", b"X-Request-ID:\t7 "),
            (b"Connection: keep-alive", b"User-Agent: caf\xe9", b"Empty:"),
        ],
    )
    def test_what_clients_send_is_plain(self, fields: tuple[bytes, ...]) -> None:
        data = head(b"Host: catalog:8000", *fields)

        found = parse(data)

        assert found is not None
        assert (found[0] + found[1], found[2]) == by_h11(data)

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
        ],
    )
    def test_what_has_more_than_one_reading_or_is_long_is_not(self, data: bytes) -> None:
        assert parse(data) is None


class TestAnswer:
    async def test_it_is_one_piece(self) -> None:
        answer = Answer(is_last=False)
        headers = [(b"content-length", b"4"), (b"a", b"b")]
        await answer.take({"type": "http.response.start", "status": 200, "headers": headers})
        await answer.take({"type": "http.response.body", "body": b"ab", "more_body": True})
        await answer.take({"type": "http.response.body", "body": b"cd"})

        begin, _, end = answer.data.partition(b"\r\ndate: ")
        assert begin == b"HTTP/1.1 200 \r\ncontent-length: 4\r\na: b"
        assert end.endswith(b" GMT\r\n\r\nabcd")
        assert not answer.is_last

    async def test_there_is_no_body_and_then_nothing_until_it_is_complete(self) -> None:
        answer = Answer(is_last=False)
        first = await answer.receive()
        waiting = asyncio.create_task(answer.receive())
        await answer.take({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0)
        assert not waiting.done()

        await answer.take({"type": "http.response.body"})

        assert first == {"type": "http.request", "body": b"", "more_body": False}
        assert await waiting == await answer.receive() == {"type": "http.disconnect"}

    async def test_a_half_one_is_none(self) -> None:
        answer = Answer(is_last=False)
        await answer.take({"type": "http.response.start", "status": 200, "headers": []})

        with pytest.raises(RuntimeError):
            _ = answer.data

    async def test_the_application_may_close_the_connection(self) -> None:
        answer = Answer(is_last=False)
        headers = [(b"connection", b"close")]
        await answer.take({"type": "http.response.start", "status": 200, "headers": headers})
        await answer.take({"type": "http.response.body"})

        assert answer.is_last
        assert answer.data.count(b"connection: close") == 1

    @pytest.mark.parametrize("value", [b"a\r\nb: c", b"a\nb", b"a\rb"])
    async def test_no_value_begins_another_header(self, value: bytes) -> None:
        answer = Answer(is_last=False)
        headers = [(b"location", value)]

        with pytest.raises(ValueError, match="line break"):
            await answer.take({"type": "http.response.start", "status": 200, "headers": headers})
