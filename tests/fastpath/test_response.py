"""The head of a whole response."""

from collections.abc import Sequence

import pytest

from catalog.fastpath.response import Response
from catalog.http.replies.reply import Reply
from catalog.http.request import Header


def response_to(reply: Reply, own: Sequence[Header] = (), *, is_private: bool = False) -> Response:
    return Response(reply, own, is_private)


def lines_of(head: bytes) -> list[bytes]:
    return head.removesuffix(b"\r\n\r\n").split(b"\r\n")


class TestHead:
    async def test_head_has_the_fields_of_the_reply_and_of_the_response(self) -> None:
        response = response_to(Reply(b"abcd", headers={"A": "b"}), [(b"x-request-id", b"7")])

        first, *fields = lines_of(response.head(is_last=False, keeps_old_alive=False))

        assert first == b"HTTP/1.1 200 OK"
        assert {b"a: b", b"content-length: 4", b"x-request-id: 7"} < set(fields)
        assert fields[-1].startswith(b"date: ")
        assert fields[-1].endswith(b" GMT")
        assert fields[:-1] == [b"%b: %b" % field for field in response.fields]

    async def test_responses_with_one_reply_differ_in_their_own_fields_alone(self) -> None:
        reply = Reply(b"abcd")

        heads = [
            response_to(reply, [(b"x-request-id", name)], is_private=is_private).head(
                is_last=False, keeps_old_alive=False
            )
            for name, is_private in ((b"1", False), (b"2", True), (b"3", False))
        ]

        assert heads[0].replace(b"x-request-id: 1", b"x-request-id: 3") == heads[2]
        assert b"x-request-id: 2" in heads[1]

    async def test_token_makes_a_public_reply_private(self) -> None:
        reply = Reply(b"abcd", headers={"Cache-Control": "no-cache"})

        for is_private, control in (
            (False, b"no-cache"),
            (True, b"no-store"),
            (False, b"no-cache"),
        ):
            response = response_to(reply, is_private=is_private)
            head = response.head(is_last=False, keeps_old_alive=False)
            assert [line for line in lines_of(head) if line.startswith(b"cache-control")] == [
                b"cache-control: " + control
            ]

    @pytest.mark.parametrize(
        "own", [[], [(b"connection", b"close")]], ids=["server", "application"]
    )
    async def test_last_response_says_once_that_the_connection_closes(
        self, own: list[Header]
    ) -> None:
        for keeps_old_alive in (False, True):
            head = response_to(Reply(), own).head(is_last=True, keeps_old_alive=keeps_old_alive)

            assert head.count(b"connection: ") == head.count(b"connection: close\r\n") == 1

    async def test_http_1_0_response_has_a_keep_alive_header(self) -> None:
        head = response_to(Reply()).head(is_last=False, keeps_old_alive=True)

        assert b"connection: keep-alive\r\n" in head

    @pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb"])
    async def test_header_value_with_a_line_break_is_refused(self, value: str) -> None:
        in_reply = response_to(Reply(headers={"Location": value}))
        in_own = response_to(Reply(), [(b"location", value.encode())])

        for response in (in_reply, in_own):
            with pytest.raises(ValueError, match="line break"):
                response.head(is_last=False, keeps_old_alive=False)

    async def test_response_to_head_has_no_body(self) -> None:
        response = Response(Reply(b"abcd"), (), is_private=False, has_body=False)

        assert response.body == b""
        assert (b"content-length", b"4") in response.fields
