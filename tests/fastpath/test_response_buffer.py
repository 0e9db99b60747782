"""The buffer holds a response until it is whole, and writes its head."""

import asyncio

import pytest

from catalog.fastpath.response_buffer import ResponseBuffer


class TestResponseBuffer:
    async def test_response_is_written_as_one_piece(self) -> None:
        answer = ResponseBuffer(is_last=False)
        headers = [(b"content-length", b"4"), (b"a", b"b")]
        await answer.take({"type": "http.response.start", "status": 200, "headers": headers})
        await answer.take({"type": "http.response.body", "body": b"ab", "more_body": True})
        await answer.take({"type": "http.response.body", "body": b"cd"})

        begin, _, end = b"".join(answer.parts).partition(b"\r\ndate: ")
        assert begin == b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\na: b"
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
