"""Strict JSON: only input that all parsers agree on; test_request_body.py tests it over HTTP."""

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
    def test_valid_json_round_trips(self, value: Any, escaped: bool) -> None:
        assert parse_json(json.dumps(value, ensure_ascii=escaped).encode()) == value

    @given(st.binary())
    def test_arbitrary_bytes_are_parsed_or_malformed(self, body: bytes) -> None:
        with suppress(MalformedRequest):
            parse_json(body)

    @pytest.mark.parametrize("innermost", [b"", b"1"])
    def test_nesting_is_limited_to_the_maximum_depth(self, innermost: bytes) -> None:
        parse_json(nested(MAX_DEPTH, innermost))

        with pytest.raises(MalformedRequest):
            parse_json(nested(MAX_DEPTH + 1, innermost))

    def test_maximum_number_of_arrays_and_objects_is_accepted(self) -> None:
        parse_json(b"[" + b"[]," * (MAX_CONTAINERS - 2) + b"{}]")

    def test_too_many_arrays_and_objects_are_refused(self) -> None:
        with pytest.raises(MalformedRequest, match="more than 10,000 arrays and objects"):
            parse_json(b"[" + b"[]," * (MAX_CONTAINERS - 1) + b"{}]")

    def test_unmatched_closing_brackets_do_not_hide_depth(self) -> None:
        with pytest.raises(MalformedRequest, match="not valid JSON"):
            parse_json(b"]" * 50_000 + b"[" * 5000)

    def test_brackets_in_strings_do_not_count_as_nesting(self) -> None:
        text = "[{" * MAX_DEPTH + '"\\'

        assert parse_json(json.dumps([text]).encode()) == [text]

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b'"\xff"', "not UTF-8"),
            (b'"\\ud800"', "lone surrogate"),
            (b'{"\\udc00": 1}', "lone surrogate"),
            (b'{"a": 1, "\\u0061": 2}', "duplicate field"),
            (b"[NaN]", "NaN is not JSON"),
            (b"-Infinity", "-Infinity is not JSON"),
            (b"1e999", "beyond the range of a double"),
            (b"-1e999", "beyond the range of a double"),
            (b"9" * 5000, "number that is too long"),
            (b"[1,\n  }", "not valid JSON at line 2, column 3"),
            (b"\xef\xbb\xbf\xef\xbb\xbf1", "not valid JSON at line 1, column 1"),
        ],
    )
    def test_text_that_parsers_disagree_on_is_refused_with_its_reason(
        self, body: bytes, message: str
    ) -> None:
        with pytest.raises(MalformedRequest) as caught:
            parse_json(body)

        assert message in str(caught.value)

    def test_pair_of_surrogates_is_one_character(self) -> None:
        assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"

    def test_depth_counts_brackets_that_are_open_at_once(self) -> None:
        shallow = b"[" + b"[[]]," * MAX_DEPTH + b"{}]"

        assert len(parse_json(shallow)) == MAX_DEPTH + 1
        with pytest.raises(MalformedRequest, match="nested deeper than 32 levels"):
            parse_json(b"[" + b"[]," * MAX_DEPTH + nested(MAX_DEPTH, b"") + b"]")
