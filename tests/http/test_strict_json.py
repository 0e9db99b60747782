"""JSON that parsers agree on, and what they do not agree on; over HTTP it is in test_bodies.py."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import MalformedRequest
from catalog.http.strict_json import MAX_CONTAINERS, MAX_DEPTH, parse_json

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


def nested(depth: int, innermost: bytes) -> bytes:
    return b"[" * depth + innermost + b"]" * depth


class TestParseJson:
    @given(JSON_VALUES, st.booleans())
    def test_what_is_json_to_everyone_is_read_as_it_was_meant(
        self, value: Any, escaped: bool
    ) -> None:
        assert parse_json(json.dumps(value, ensure_ascii=escaped).encode()) == value

    @given(st.binary())
    def test_any_bytes_are_read_or_malformed(self, body: bytes) -> None:
        with suppress(MalformedRequest):
            parse_json(body)

    @pytest.mark.parametrize("innermost", [b"", b"1"])
    def test_the_deepest_nesting_is_read(self, innermost: bytes) -> None:
        parse_json(nested(MAX_DEPTH, innermost))

        with pytest.raises(MalformedRequest):
            parse_json(nested(MAX_DEPTH + 1, innermost))

    def test_depth_counts_and_not_size(self) -> None:
        parse_json(b"[" + b"[]," * (MAX_CONTAINERS - 2) + b"{}]")

    def test_more_arrays_and_objects_than_allowed_are_refused(self) -> None:
        with pytest.raises(MalformedRequest, match="more than 10,000 arrays and objects"):
            parse_json(b"[" + b"[]," * (MAX_CONTAINERS - 1) + b"{}]")

    def test_brackets_that_close_nothing_hide_no_depth(self) -> None:
        with pytest.raises(MalformedRequest, match="not JSON"):
            parse_json(b"]" * 50_000 + b"[" * 5000)

    def test_brackets_in_strings_nest_nothing(self) -> None:
        text = "[{" * MAX_DEPTH + '"\\'

        assert parse_json(json.dumps([text]).encode()) == [text]
