"""Cursors: opaque, signed, bound to their list, and with a single encoding."""

import string
from base64 import urlsafe_b64decode, urlsafe_b64encode
from urllib.parse import parse_qs, quote, urlsplit

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from catalog.errors import InvalidCursor
from catalog.http.pagination import (
    MAX_CURSOR_LENGTH,
    MAX_LINK_LENGTH,
    Cursors,
    Place,
    link_headers,
)
from tests.support import Caller, Response, fields_of, problem_of

CURSORS = Cursors(b"k" * 32)
LIST = "/api/things?sort=-id"
ALPHABET = string.ascii_letters + string.digits + "-_"

POSITIONS = st.lists(
    st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40),
    max_size=4,
)


def cursor_of(page: Response) -> str:
    """Return the cursor of the next page."""
    (cursor,) = parse_qs(urlsplit(str(page.json["next"])).query)["cursor"]
    return cursor


def is_refused(cursor: str, *, bound_to: str = LIST, by: Cursors = CURSORS) -> bool:
    try:
        by.decode(cursor, bound_to=bound_to)
    except InvalidCursor:
        return True
    return False


class TestCursors:
    @given(POSITIONS, st.text())
    def test_position_round_trips(self, position: list[int | float | str], bound_to: str) -> None:
        cursor = CURSORS.encode(position, bound_to=bound_to)

        assert set(cursor) <= set(ALPHABET)
        assert CURSORS.decode(cursor, bound_to=bound_to) == position

    def test_cursor_of_the_largest_id_is_within_the_length_limit(self) -> None:
        assert len(CURSORS.encode([2**63 - 1], bound_to=LIST)) < MAX_CURSOR_LENGTH

    @given(st.text(max_size=80))
    def test_arbitrary_text_is_refused(self, text: str) -> None:
        assert is_refused(text)

    @given(st.binary(max_size=80))
    def test_arbitrary_bytes_in_base64_are_refused(self, sealed: bytes) -> None:
        assert is_refused(urlsafe_b64encode(sealed).rstrip(b"=").decode())

    @given(st.integers(0, 2**63 - 1), st.data())
    def test_cursor_with_a_changed_character_is_refused(
        self, position: int, data: st.DataObject
    ) -> None:
        cursor = CURSORS.encode([position], bound_to=LIST)
        at = data.draw(st.integers(0, len(cursor) - 1))
        other = data.draw(st.sampled_from(ALPHABET))
        assume(cursor[at] != other)

        assert is_refused(cursor[:at] + other + cursor[at + 1 :])

    def test_changed_position_invalidates_the_signature(self) -> None:
        cursor = CURSORS.encode([7], bound_to=LIST)
        sealed = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        assert sealed.endswith(b"[7]")

        forged = sealed.removesuffix(b"[7]") + orjson.dumps([8])

        assert is_refused(urlsafe_b64encode(forged).rstrip(b"=").decode())

    @given(st.text(), st.text())
    def test_cursor_is_bound_to_one_list(self, here: str, there: str) -> None:
        assume(here != there)

        assert is_refused(CURSORS.encode([7], bound_to=here), bound_to=there)

    def test_cursor_is_bound_to_one_secret(self) -> None:
        assert is_refused(CURSORS.encode([7], bound_to=LIST), by=Cursors(b"j" * 32))

    def test_previous_secrets_verify_but_do_not_sign(self) -> None:
        old, older, new = (Cursors(secret * 32) for secret in (b"k", b"j", b"n"))
        ring = Cursors(b"n" * 32, b"k" * 32, b"j" * 32)

        for made_by in (old, older, new):
            cursor = made_by.encode([7], bound_to=LIST)
            assert ring.decode(cursor, bound_to=LIST) == [7]
            assert is_refused(cursor, bound_to="/elsewhere", by=ring)
        assert ring.encode([7], bound_to=LIST) == new.encode([7], bound_to=LIST)
        assert is_refused(Cursors(b"x" * 32).encode([7], bound_to=LIST), by=ring)

    def test_boundary_between_list_and_position_is_signed(self) -> None:
        cursor = CURSORS.encode([7], bound_to="ab")
        sealed = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))

        moved = sealed.removesuffix(b"[7]") + b"b[7]"

        assert is_refused(urlsafe_b64encode(moved).rstrip(b"=").decode(), bound_to="a")

    def test_cursor_of_an_earlier_release_stays_valid(self) -> None:
        assert CURSORS.decode("fsSc3a9H7KT1FDULM0SHT1s3XQ", bound_to=LIST) == [7]

    def test_cursors_are_shared_by_instances_with_one_secret(self) -> None:
        cursor = CURSORS.encode([7], bound_to=LIST)

        assert Cursors(b"k" * 32).decode(cursor, bound_to=LIST) == [7]


def spellings(cursor: str) -> dict[str, str]:
    """Return variants that a lenient decoder would accept for a cursor, and damaged ones."""
    twin = ALPHABET[(ALPHABET.index(cursor[-1]) + 1) % 64]
    return {
        "truncated": cursor[:-1],
        "half": cursor[: len(cursor) // 2],
        "one-character": cursor[:1],
        "doubled": cursor + cursor,
        "padded": cursor + "=",
        "padded-twice": cursor + "==",
        "padded-four-times": cursor + "====",
        "space-before": " " + cursor,
        "space-behind": cursor + " ",
        "newline-behind": cursor + "\n",
        "newline-within": cursor[:4] + "\r\n" + cursor[4:],
        "foreign-character-within": cursor[:4] + "!" + cursor[4:],
        "foreign-characters-everywhere": "*".join(cursor),
        "full-stop-behind": cursor + ".",
        "nul-behind": cursor + "\0",
        "not-ascii-behind": cursor + "é",
        "full-width": "".join(chr(ord(each) + 0xFEE0) for each in cursor),
        "last-character-changed": cursor[:-1] + twin,
        "first-character-changed": ("B" if cursor[0] != "B" else "C") + cursor[1:],
        "other-case": cursor.swapcase(),
        "quoted": f'"{cursor}"',
    }


SPELLINGS = list(spellings("x" * 26))


class TestEncoding:
    @pytest.mark.parametrize("spelling", SPELLINGS)
    @pytest.mark.parametrize("position", [[7], [70], [700]], ids=["19", "20", "21-bytes"])
    def test_only_the_canonical_encoding_is_accepted(
        self, position: list[int | float | str], spelling: str
    ) -> None:
        cursor = CURSORS.encode(position, bound_to=LIST)

        assert is_refused(spellings(cursor)[spelling])

    def test_standard_base64_alphabet_is_refused(self) -> None:
        for number in range(100):
            cursor = CURSORS.encode([number], bound_to=LIST)
            other = cursor.replace("-", "+").replace("_", "/")

            assert is_refused(other) == (other != cursor)

    def test_unused_bits_must_be_zero(self) -> None:
        cursor = CURSORS.encode([7], bound_to=LIST)
        assert len(cursor) % 4 == 2

        twins = [cursor[:-1] + last for last in ALPHABET if not is_refused(cursor[:-1] + last)]

        assert twins == [cursor]


class TestLinks:
    def test_link_header_has_the_relation(self) -> None:
        assert link_headers("/api/things?cursor=abc") == {
            "Link": '</api/things?cursor=abc>; rel="next"'
        }

    def test_link_header_may_have_exactly_the_largest_length(self) -> None:
        url = "/" + "x" * (MAX_LINK_LENGTH - 1)

        assert link_headers(url) == {"Link": f'<{url}>; rel="next"'}

    def test_link_header_is_omitted_at_the_end_and_for_long_urls(self) -> None:
        assert link_headers(None) == {}
        assert link_headers("/" + "x" * MAX_LINK_LENGTH) == {}


class TestPlace:
    def test_next_page_begins_after_the_last_row(self) -> None:
        first = Place(CURSORS, None, path="/api/things", bound_to=LIST)

        url = first.next_url(first.next_cursor(("Lamp", 7)), [])

        (cursor,) = parse_qs(urlsplit(str(url)).query)["cursor"]
        assert first.after is None
        assert Place(CURSORS, cursor, path="/api/things", bound_to=LIST).after == ["Lamp", 7]

    def test_link_repeats_the_parameters_except_the_cursor(self) -> None:
        cursor = CURSORS.encode([9], bound_to=LIST)
        place = Place(CURSORS, cursor, path="/api/things", bound_to=LIST)

        next_cursor = place.next_cursor([7])
        given = [("limit", "100"), ("cursor", cursor), ("ids", "5,8"), ("ids", "9"), ("q", "a b&c")]
        url = urlsplit(str(place.next_url(next_cursor, given)))

        assert url.path == "/api/things"
        # A comma is not escaped.
        assert url.query == f"cursor={next_cursor}&limit=100&ids=5,8&ids=9&q=a+b%26c"

    def test_last_page_has_no_next_page(self) -> None:
        place = Place(CURSORS, None, path="/api/things", bound_to=LIST)

        assert place.next_cursor(None) is None
        assert place.next_url(None, [("limit", "100")]) is None

    def test_cursor_of_another_list_is_refused(self) -> None:
        cursor = CURSORS.encode([9], bound_to="/elsewhere")

        with pytest.raises(InvalidCursor):
            Place(CURSORS, cursor, path="/api/things", bound_to=LIST)


class TestListing:
    """Cursors over HTTP, on the service's lists."""

    async def test_cursors_lead_to_the_end_of_the_list(self, ada: Caller, anyone: Caller) -> None:
        for number in range(5):
            await ada.create_product(f"Lamp {number}")

        for caller, path in ((anyone, "/api/products"), (ada, "/api/products/my")):
            names, url = [], f"{path}?limit=2"
            while url:
                page = await caller.get(url)
                assert page.status_code == 200
                names += [product["name"] for product in page.json["products"]]
                url = page.json["next"]
                assert page.headers.get("Link") == (f'<{url}>; rel="next"' if url else None)

            assert names == [f"Lamp {number}" for number in reversed(range(5))]

    async def test_cursor_of_another_list_is_invalid(self, ada: Caller, anyone: Caller) -> None:
        for name in ("Lamp", "Desk"):
            await ada.create_product(name)
        everyones = cursor_of(await anyone.get("/api/products?limit=1"))
        mine = cursor_of(await ada.get("/api/products/my?limit=1"))

        swapped = [
            await ada.get(f"/api/products/my?cursor={everyones}"),
            await anyone.get(f"/api/products?cursor={mine}"),
        ]

        assert [problem_of(answer) for answer in swapped] == [(400, "cursor-invalid")] * 2

    async def test_cursor_in_another_encoding_is_refused(self, ada: Caller, anyone: Caller) -> None:
        for name in ("Lamp", "Desk"):
            await ada.create_product(name)
        cursor = cursor_of(await anyone.get("/api/products?limit=1"))

        for spelling, text in spellings(cursor).items():
            answer = await anyone.get(f"/api/products?cursor={quote(text)}")

            assert problem_of(answer) == (400, "cursor-invalid"), spelling

    async def test_percent_encoded_cursor_is_accepted(self, ada: Caller, anyone: Caller) -> None:
        for name in ("Lamp", "Desk"):
            await ada.create_product(name)
        cursor = cursor_of(await anyone.get("/api/products?limit=1"))

        encoded = "".join(f"%{ord(each):02X}" for each in cursor)
        page = await anyone.get(f"/api/products?cursor={encoded}")

        assert [product["name"] for product in page.json["products"]] == ["Lamp"]

    @pytest.mark.parametrize(
        "cursor",
        ["x", "A" * 22, "A" * MAX_CURSOR_LENGTH, "%00", "%C3%A9", "%F0%9F%92%A9", "null"],
    )
    async def test_malformed_cursor_is_refused(self, stranger: Caller, cursor: str) -> None:
        answer = await stranger.get(f"/api/products?cursor={cursor}")

        assert problem_of(answer) == (400, "cursor-invalid")

    async def test_overlong_cursor_is_an_invalid_parameter(self, stranger: Caller) -> None:
        answer = await stranger.get(f"/api/products?cursor={'A' * (MAX_CURSOR_LENGTH + 1)}")

        assert problem_of(answer) == (422, "invalid")
        assert fields_of(answer) == ["cursor"]
