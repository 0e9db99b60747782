"""The words of texts and searches, and the tokens that indexes keep of them."""

import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.products.words import (
    BUCKET_IDS,
    BUCKETS,
    MAX_TOKEN_LENGTH,
    bucket_of,
    buckets_between,
    terms_of,
    text_of,
    tokens_of,
)

TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)


def matches(q: str, name: str, description: str | None = None) -> bool:
    """Whether a search finds a product, as every engine has to decide it."""
    terms, text = terms_of(q), text_of(name, description)
    return bool(terms) and all(term in text for term in terms)


class TestTextOf:
    def test_it_is_each_token_once_with_a_space_before_it(self) -> None:
        assert text_of("Oak lamp", "A lamp of oak, 10%.") == " _oak _lamp _a _of _10"

    def test_a_text_without_letters_has_none(self) -> None:
        for text in ("", " ", "!?", "\U0001f600", "\u0301", "— …"):
            assert text_of(text, None) == text_of(text, text) == ""

    @given(TEXTS, TEXTS | st.none())
    def test_tokens_are_letters_and_digits_that_no_engine_leaves_out(
        self, name: str, description: str | None
    ) -> None:
        for token in tokens_of(text_of(name, description), 7).split():
            assert re.fullmatch(r"00_[a-z0-9]+", token)
            assert len(token) <= MAX_TOKEN_LENGTH

    @given(TEXTS)
    def test_plain_text_takes_a_shorter_way_to_the_same(self, text: str) -> None:
        plain = "".join(character for character in text if character.isascii())

        # With a character that is no word and no ASCII, it takes the longer way.
        assert text_of(plain, None) == text_of(plain, "…")

    @given(TEXTS)
    def test_how_a_text_is_composed_does_not_matter(self, text: str) -> None:
        forms = {text_of(unicodedata.normalize(form, text), None) for form in ("NFC", "NFD")}

        assert forms == {text_of(text, None)}

    def test_a_word_that_is_too_long_is_cut_between_two_characters(self) -> None:
        for letter, length in (("a", 77), ("q", 38), ("я", 15), ("яq", 22)):
            long, cut = (letter * 200)[:200], (letter * 200)[:length]
            assert text_of(long, None) == text_of(cut, None) == text_of(f"{cut}{letter}x", None)
            assert text_of(cut, None) != text_of(cut[:-1], None)
            assert terms_of(long) == terms_of(cut)


class TestBuckets:
    def test_a_products_words_bear_the_name_of_its_bucket(self) -> None:
        text = text_of("Oak lamp", None)

        assert tokens_of(text, 7) == " 00_oak 00_lamp"
        assert tokens_of(text, 37 * BUCKET_IDS) == " 11_oak 11_lamp"
        assert tokens_of("", 7) == ""

    @given(st.integers(1, 2**63 - 1), st.integers(0, 2 * BUCKETS * BUCKET_IDS), st.data())
    def test_between_two_ids_are_the_buckets_of_all(
        self, first: int, distance: int, data: st.DataObject
    ) -> None:
        found = buckets_between(first, first + distance)
        between = data.draw(st.integers(first, first + distance))

        assert bucket_of(between) in found
        assert len(set(found)) == len(found) <= min(BUCKETS, distance // BUCKET_IDS + 2)


class TestTermsOf:
    def test_they_are_tokens_each_once(self) -> None:
        assert terms_of("Lamp, lamp; OAK") == ("_lamp", "_oak")

    def test_there_are_none_without_letters(self) -> None:
        assert terms_of(" \t%_*\"'\\+-()~<>@") == terms_of("\U0001f600") == ()

    @given(TEXTS)
    def test_a_text_is_found_by_itself(self, text: str) -> None:
        assert matches(text, text) == bool(terms_of(text))

    @given(TEXTS, TEXTS)
    def test_a_text_is_found_by_each_of_its_parts_words(self, some: str, rest: str) -> None:
        if terms_of(some):
            assert matches(some, f"{rest}\n{some}")
            assert matches(some, rest, some)

    @given(st.text(st.sampled_from("aqzéя1ß\u0301한"), min_size=1, max_size=12), st.data())
    def test_what_begins_a_word_finds_it(self, word: str, data: st.DataObject) -> None:
        beginning = word[: data.draw(st.integers(1, len(word)))]

        if terms_of(beginning):
            assert matches(beginning, word)

    @given(
        st.text(st.sampled_from("aqxzя1"), min_size=1, max_size=6),
        st.text(st.sampled_from("aqxzя1"), min_size=1, max_size=6),
    )
    def test_nothing_else_finds_it(self, beginning: str, word: str) -> None:
        assert matches(beginning, word) == word.startswith(beginning)

    def test_no_two_characters_are_written_alike(self) -> None:
        # Every one that is neither folded to another nor to several.
        letters = [
            letter
            for letter in map(chr, range(0x80, sys.maxunicode, 7))
            if letter.isalpha() and unicodedata.normalize("NFKD", letter.casefold()) == letter
        ]

        assert len({terms_of(letter) for letter in letters}) == len(letters) > 10_000


@pytest.mark.parametrize(
    ("q", "text"),
    [
        ("strasse", "STRAẞE"),
        ("straße", "Strasse"),
        ("cafe", "Café"),
        ("CAFÉ", "cafe\u0301"),
        ("oeuvre", "oeuvre"),
        ("ﬁ", "fish"),
        ("ABC", "\uff21\uff22\uff23"),
        ("バス", "ﾊﾞｽ"),
        ("ii", "Ⅱ"),
        ("m2", "m²"),
        ("istanbul", "İstanbul"),
        ("ΣΟΦΟΣ", "σοφος"),
        ("σοφός", "ΣΟΦΟΣ"),
        ("한", "한국어"),
        ("국", "국제"),
        ("花瓶", "青い花瓶です"),
        ("瓶", "花瓶"),
        ("東京", "東京都"),
        ("ランプ", "和紙ランプ"),
        ("กาแฟ", "ร้านกาแฟ"),
        ("שלום", "שָׁלוֹם"),
        ("محمد", "مُحَمَّد"),
        ("हिन्दी", "हिन्दी"),
        ("coop", "co\u00adop"),
        ("1", "1\ufe0f\u20e3"),
        ("x", "x_y"),
        ("y", "x_y"),
        ("s", "grandmother's"),
    ],
)
def test_what_people_hold_for_the_same_is_found(q: str, text: str) -> None:
    assert matches(q, text)


@pytest.mark.parametrize(
    ("q", "text"),
    [
        ("amp", "lamp"),
        ("lamps", "lamp"),
        ("瓶花", "花瓶"),
        ("国", "中"),
        ("e", "œuvre"),
        ("ab", "a b"),
        ("か", "が"),
    ],
)
def test_what_is_another_word_is_not(q: str, text: str) -> None:
    assert not matches(q, text)
