"""Trailers of chunked bodies are bounded as heads are, however they are split."""

import time
from typing import Any

import h11
import pytest

from catalog.fastpath.request_head import MAX_FIELDS, MAX_HEAD_BYTES
from catalog.fastpath.trailers import bound_trailers

HEAD = b"POST / HTTP/1.1\r\nHost: catalog\r\nTransfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n"
READ_BYTES = 64 * 1024


def connection_in_body(*, is_bounded: bool = True) -> Any:
    """Return a connection whose client has sent the head of a chunked request."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    connection.receive_data(HEAD)
    assert isinstance(connection.next_event(), h11.Request)
    if is_bounded:
        bound_trailers(connection)
    return connection


def events_of(connection: Any, data: bytes, size: int = READ_BYTES) -> list[type]:
    """Return the kinds of what the client has sent behind the head, in pieces of a size."""
    kinds = []
    for start in range(0, len(data), size):
        connection.receive_data(data[start : start + size])
        while type(event := connection.next_event()) in {h11.Data, h11.EndOfMessage}:
            kinds.append(type(event))
    return kinds


@pytest.mark.parametrize("size", [1, 7, READ_BYTES])
@pytest.mark.parametrize(
    "trailers",
    [b"", b"a: b\r\n", b"a:\r\n" * (MAX_FIELDS - 1), b"a: " + b"b" * 30_000 + b"\r\n"],
    ids=["none", "one", "many", "long"],
)
def test_body_with_few_trailers_is_read(trailers: bytes, size: int) -> None:
    data = b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n"

    kinds = events_of(connection_in_body(), data, size)

    assert kinds[0] is h11.Data
    assert kinds[-1] is h11.EndOfMessage


@pytest.mark.parametrize("size", [1000, READ_BYTES])
@pytest.mark.parametrize(
    "trailers",
    [b"a:\r\n" * (MAX_FIELDS + 2), b"a: " + b"b" * MAX_HEAD_BYTES + b"\r\n"],
    ids=["many", "long"],
)
def test_too_large_trailers_are_malformed(trailers: bytes, size: int) -> None:
    with pytest.raises(h11.RemoteProtocolError):
        events_of(connection_in_body(), b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n", size)


def test_requests_behind_a_body_are_no_trailers() -> None:
    connection = connection_in_body()

    kinds = events_of(connection, b"0\r\n\r\n" + NEXT * (READ_BYTES // len(NEXT) - 1))

    assert kinds == [h11.EndOfMessage]
    assert connection.trailing_data[0].startswith(NEXT)


def test_body_of_a_known_length_has_no_trailers() -> None:
    connection: Any = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: catalog\r\nContent-Length: 2\r\n\r\n")
    connection.next_event()
    reader = connection._reader

    bound_trailers(connection)

    assert connection._reader is reader


def test_many_trailers_are_refused_in_a_step_that_is_short() -> None:
    """CPU time of this thread, so that other processes do not count; the control parses all."""
    trailers = b"0\r\n" + b"a:\r\n" * 12_000 + b"\r\n"

    def seconds_of(*, is_bounded: bool) -> float:
        connection = connection_in_body(is_bounded=is_bounded)
        connection.receive_data(trailers)
        began = time.thread_time()
        if is_bounded:
            with pytest.raises(h11.RemoteProtocolError):
                connection.next_event()
        else:
            assert isinstance(connection.next_event(), h11.EndOfMessage)
        return time.thread_time() - began

    control = min(seconds_of(is_bounded=False) for _ in range(3))
    assert min(seconds_of(is_bounded=True) for _ in range(3)) < control / 5
