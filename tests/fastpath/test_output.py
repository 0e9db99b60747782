"""Output events: large and shared parts are not copied."""

import pytest
from hypercorn.events import RawData

from catalog.fastpath.output import Parts, sendable
from catalog.http.response_buffers import LARGE_BYTES, SHARED_BYTES


class TestSendable:
    def test_short_parts_are_joined(self) -> None:
        joined = sendable([b"head", b"", b"body"])

        assert isinstance(joined, RawData)
        assert joined.data == b"headbody"

    @pytest.mark.parametrize("size", [SHARED_BYTES, LARGE_BYTES])
    def test_parts_from_the_given_size_on_are_the_objects_themselves(self, size: int) -> None:
        body = bytes(size)

        parts = sendable([b"head", b"", body], joined_below=size)

        assert isinstance(parts, Parts)
        assert [*map(id, parts.parts)][1:] == [id(body)]
