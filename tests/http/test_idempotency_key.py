"""``Idempotency-Key``: quoted or not, one of printable ASCII, else refused."""

import pytest

from catalog.errors import InvalidRequest
from catalog.http.idempotency_key import idempotency_key, key_among
from tests.support import handling


class TestIdempotencyKey:
    @pytest.mark.parametrize("key", ["k", " ", "~", "k" * 255])
    def test_printable_key_is_accepted(self, key: str) -> None:
        assert key_among([key]) == key

    @pytest.mark.parametrize(
        ("value", "key"),
        [
            ('"k"', "k"),
            (f'"{"k" * 255}"', "k" * 255),
            (r'"a\"b\\c"', r'a"b\c'),
            # Not a string of a structured field, so each is taken as it is.
            ('"k', '"k'),
            ('"a"b"', '"a"b"'),
            (r'"a\b"', r'"a\b"'),
            ('"k";a=1', '"k";a=1'),
        ],
    )
    def test_quotes_are_no_part_of_the_key(self, value: str, key: str) -> None:
        assert key_among([value]) == key

    def test_request_without_the_header_has_no_key(self) -> None:
        assert key_among([]) is None

    @pytest.mark.parametrize(
        "values",
        [[""], ['""'], ["k" * 256], [f'"{"k" * 256}"'], ["\t"], ["\x7f"], ["é"], ["a", "a"]],
    )
    def test_other_keys_and_several_are_refused(self, values: list[str]) -> None:
        with pytest.raises(InvalidRequest) as caught:
            key_among(values)

        (fault,) = caught.value.errors
        assert (fault.place, fault.name) == ("header", "Idempotency-Key")

    async def test_key_is_that_of_the_current_request(self) -> None:
        with handling(headers=[(b"idempotency-key", b"k")]):
            assert idempotency_key() == "k"
