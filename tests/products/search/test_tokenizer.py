"""Tokenizer: words of texts and searches, and the tokens that the index stores."""

import asyncio
import random
import re
import sys
import tracemalloc
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.products.models import MAX_DESCRIPTION
from catalog.products.search import tokenizer
from catalog.products.search.tokenizer import (
    BUCKET_IDS,
    BUCKETS,
    MAX_TOKEN_LENGTH,
    bucket_of,
    buckets_between,
    terms_of,
    text_in_turns,
    text_of,
    tokens_of,
)
from tests.products.search.reference_words import reference_terms_of, reference_text_of
from tests.watchdog import Watchdog

TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
MIXED = st.text(
    st.sampled_from(
        "aZq1 _é\u0301\u094d\u093cकか花ไ\u0e31\u17d2\u1780ー"
        "ß\u3099\uff9eﾊ\ufdfa㌀Ⅷ½\u200d\x01\x02한"
    ),
    max_size=200,
)


LONGEST = (
    # The twelve of U+3300 to U+33FF with the longest decomposition.
    "".join(
        sorted(
            map(chr, range(0x3300, 0x3400)),
            key=lambda sign: -len(unicodedata.normalize("NFKD", sign)),
        )[:12]
    ),
    "".join(map(chr, range(0x4E00, 0xA000))),
    "".join(map(chr, range(0x20000, 0x2A6E0))),
    "".join(map(chr, range(0xAC00, 0xD7A4))),
    "\ufdfa\ufdfba ",
    "か\u3099ab ",
)


def matches(q: str, name: str, description: str | None = None) -> bool:
    """Return whether a search finds a product, as every engine must decide it."""
    terms, text = terms_of(q), text_of(name, description)
    return bool(terms) and all(term in text for term in terms)


class TestTextOf:
    def test_text_has_each_token_once_after_a_space(self) -> None:
        assert text_of("Oak lamp", "A lamp of oak, 10%.") == " _oak _lamp _a _of _10"

    def test_text_without_letters_has_no_tokens(self) -> None:
        for text in ("", " ", "!?", "\U0001f600", "\u0301", "— …"):
            assert text_of(text, None) == text_of(text, text) == ""

    @given(TEXTS, TEXTS | st.none())
    def test_tokens_have_only_characters_that_every_engine_indexes(
        self, name: str, description: str | None
    ) -> None:
        for token in tokens_of(text_of(name, description), 7).split():
            assert re.fullmatch(r"00_[a-z0-9]+", token)
            assert len(token) <= MAX_TOKEN_LENGTH

    @given(TEXTS)
    def test_ascii_fast_path_yields_the_same_tokens(self, text: str) -> None:
        plain = "".join(character for character in text if character.isascii())

        # A character that is neither a word nor ASCII forces the general path.
        assert text_of(plain, None) == text_of(plain, "…")

    @given(TEXTS)
    def test_unicode_composition_does_not_matter(self, text: str) -> None:
        forms = {text_of(unicodedata.normalize(form, text), None) for form in ("NFC", "NFD")}

        assert forms == {text_of(text, None)}

    def test_too_long_word_is_cut_between_two_characters(self) -> None:
        for letter, length in (("a", 77), ("q", 38), ("я", 15), ("яq", 22)):
            long, cut = (letter * 200)[:200], (letter * 200)[:length]
            assert text_of(long, None) == text_of(cut, None) == text_of(f"{cut}{letter}x", None)
            assert text_of(cut, None) != text_of(cut[:-1], None)
            assert terms_of(long) == terms_of(cut)


class TestTextInTurns:
    @given(MIXED, st.integers(1, 20))
    def test_parts_have_the_words_of_the_whole(self, text: str, length: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokenizer, "_PART_LENGTH", length)
            words = asyncio.run(text_in_turns("é", text)).split()

        assert words == text_of("é", text).split()

    @given(TEXTS, st.integers(1, 5))
    def test_parts_of_any_text_have_its_words(self, text: str, length: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokenizer, "_PART_LENGTH", length)
            words = asyncio.run(text_in_turns("é", text)).split()

        assert words == text_of("é", text).split()

    @pytest.mark.parametrize("letters", LONGEST, ids=map(ascii, LONGEST))
    async def test_long_text_does_not_block_the_event_loop(self, letters: str) -> None:
        drawn = random.Random(1)  # noqa: S311 (a test)
        text = "".join(drawn.choices(letters, k=MAX_DESCRIPTION))
        expected = text_of("Lamp", text)

        with Watchdog(limit=0.02):
            words = await text_in_turns("Lamp", text)

        assert words == expected

    async def test_turn_may_end_in_a_long_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("catalog.concurrency.turns.TURN_SECONDS", -1.0)
        task = asyncio.create_task(text_in_turns("Lamp", "\u3316" * MAX_DESCRIPTION))
        turns = 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1

        # Folded to six times as many characters.
        assert turns > 6 * MAX_DESCRIPTION // tokenizer._PART_LENGTH


def characters(*ranges: range) -> str:
    """Return random characters from the ranges, as many as a description may have."""
    pool = [chr(code) for codes in ranges for code in codes]
    return "".join(random.Random(len(pool)).choices(pool, k=MAX_DESCRIPTION))  # noqa: S311 (no secret)


def words(length: int, *ranges: range) -> str:
    """Return random characters from the ranges, with a space after every ``length`` of them."""
    text = characters(*ranges)
    return " ".join(text[at : at + length] for at in range(0, len(text), length))[:MAX_DESCRIPTION]


LETTERS = [code for code in range(0x80, sys.maxunicode + 1) if chr(code).isalpha()]
HAN = range(0x4E00, 0x9FFF)
CYRILLIC = range(0x430, 0x450)

LONG_TEXTS = {
    "han": characters(HAN),
    "han-extension": characters(range(0x20000, 0x2A6D0)),
    "han-pairs": words(2, HAN),
    "han-and-latin": words(1, HAN).replace(" ", "é"),
    "kana": characters(range(0x3041, 0x3097), range(0x30A1, 0x30FF)),
    "half-width-kana": characters(range(0xFF66, 0xFFA0)),
    "thai": characters(range(0xE01, 0xE3B), range(0xE40, 0xE4F)),
    "khmer": characters(range(0x1780, 0x17D4)),
    "myanmar": characters(range(0x1000, 0x109E)),
    "hangul": characters(range(0xAC00, 0xD7A4)),
    "hangul-syllables": words(1, range(0xAC00, 0xD7A4)),
    "jamo": unicodedata.normalize("NFD", characters(range(0xAC00, 0xD7A4)))[:MAX_DESCRIPTION],
    "all-scripts": "".join(random.Random(2).choices([*map(chr, LETTERS)], k=MAX_DESCRIPTION)),  # noqa: S311 (no secret)
    "all-scripts-apart": " ".join(map(chr, LETTERS[:: len(LETTERS) // 8000])),
    "one-giant-word": "a" * MAX_DESCRIPTION,
    "one-giant-word-of-q": "q" * MAX_DESCRIPTION,
    "one-giant-cyrillic-word": characters(CYRILLIC),
    "cyrillic-words": words(3, CYRILLIC),
    "cyrillic-letters": words(1, CYRILLIC),
    "latin-words": words(6, range(0xC0, 0x250)),
    "devanagari-words": words(6, range(0x904, 0x94E)),
    "arabic-words": words(6, range(0x620, 0x660)),
    "all-different-words": " ".join(f"{number:x}é" for number in range(3000)),
    "expanding-to-18": "\ufdfa" * MAX_DESCRIPTION,
    "expanding-to-18-apart": "\ufdfaa " * (MAX_DESCRIPTION // 3),
    "expanding-to-8": "\ufdfb" * MAX_DESCRIPTION,
    "expanding-to-5": characters(range(0x3300, 0x3400)),
    "fractions": "½" * MAX_DESCRIPTION,
    "emoji": "\U0001f600" * MAX_DESCRIPTION,
    "music": "\U0001d15e\U0001d165" * (MAX_DESCRIPTION // 2),
}
# The reference takes quadratic time for these.
MARKS_OF_TWO_KINDS = {
    "ignored": "a" + "\u0301" * 8000 + "\u0327" * 8000,
    "ignored-in-turn": "a" + "\u0301\u0327" * 8000,
    "kept": "\u0915" + "\u094d" * 8000 + "\u093c" * 8000,
    "kept-in-turn": "\u0915" + "\u094d\u093c" * 8000,
    "decomposed": "\u0f40" + "\u0f73\u0f71\u0f74\u0f72" * 4000,
    "half-width": "\uff76" + "\u0301\uff9e" * 8000,
    "without-a-letter": "\u094d\u093c" * 8000,
}


class TestStoredTokens:
    """Tokens of stored products, which the fast tokenizer must still yield."""

    @given(TEXTS)
    def test_words_of_any_text_equal_those_of_the_reference(self, text: str) -> None:
        assert text_of(text, None) == reference_text_of(text)
        assert terms_of(text) == reference_terms_of(text)

    @given(MIXED)
    def test_words_of_mixed_scripts_equal_those_of_the_reference(self, text: str) -> None:
        assert text_of(text, None) == reference_text_of(text)
        assert terms_of(text) == reference_terms_of(text)

    @given(st.lists(TEXTS | MIXED, max_size=6), st.text(" \t\u00a0\u3000\u2028\x1f", min_size=1))
    def test_words_of_cached_pieces_equal_those_of_the_reference(
        self, pieces: list[str], between: str
    ) -> None:
        text = between.join(pieces)
        for _ in pieces:
            text_of(text, None)

        assert text_of(text, None) == reference_text_of(text)

    def test_every_character_is_encoded_as_in_the_reference(self) -> None:
        # There are no letters beyond these blocks.
        for block in range(0x100, 0x32400, 0x100):
            text = "".join(
                f"a{chr(code)}b 花{chr(code)}木 {chr(code)}\n"
                for code in range(block, block + 0x100)
            )
            assert text_of(text, None) == reference_text_of(text)

    @pytest.mark.parametrize("text", LONG_TEXTS.values(), ids=LONG_TEXTS)
    def test_words_of_a_long_text_equal_those_of_the_reference(self, text: str) -> None:
        assert text_of(text, None) == reference_text_of(text)
        # Once more, with the codes of its characters cached.
        assert text_of(text, text[:9]) == reference_text_of(f"{text}\n{text[:9]}")

    @pytest.mark.parametrize("text", MARKS_OF_TWO_KINDS.values(), ids=MARKS_OF_TWO_KINDS)
    def test_words_of_many_marks_equal_those_of_the_reference(self, text: str) -> None:
        some = text[:100] + text[-100:]

        assert text_of(some, None) == reference_text_of(some)

    @pytest.mark.parametrize(
        "text", (LONG_TEXTS | MARKS_OF_TWO_KINDS).values(), ids=LONG_TEXTS | MARKS_OF_TWO_KINDS
    )
    def test_longest_text_of_any_kind_takes_little_time(self, text: str) -> None:
        with Watchdog(limit=0.1):
            text_of(text, None)

    def test_pieces_of_many_texts_take_bounded_memory(self) -> None:
        text_of("é", None)
        tracemalloc.start()
        try:
            for number in range(20_000):
                text_of(f"é{number} à{number}", None)
            assert tracemalloc.get_traced_memory()[0] < 4_000_000
        finally:
            tracemalloc.stop()

    def test_characters_of_many_texts_take_bounded_memory(self) -> None:
        tracemalloc.start()
        try:
            for begin in range(0, len(LETTERS), 8000):
                text_of("".join(map(chr, LETTERS[begin : begin + 8000])), None)
            assert tracemalloc.get_traced_memory()[0] < 8_000_000
        finally:
            tracemalloc.stop()


class TestBuckets:
    def test_tokens_are_prefixed_with_the_products_bucket(self) -> None:
        text = text_of("Oak lamp", None)

        assert tokens_of(text, 7) == " 00_oak 00_lamp"
        assert tokens_of(text, 37 * BUCKET_IDS) == " 11_oak 11_lamp"
        assert tokens_of("", 7) == ""

    @given(st.integers(1, 2**63 - 1), st.integers(0, 2 * BUCKETS * BUCKET_IDS), st.data())
    def test_buckets_between_two_ids_cover_all_ids_of_the_range(
        self, first: int, distance: int, data: st.DataObject
    ) -> None:
        found = buckets_between(first, first + distance)
        between = data.draw(st.integers(first, first + distance))

        assert bucket_of(between) in found
        assert len(set(found)) == len(found) <= min(BUCKETS, distance // BUCKET_IDS + 2)


class TestTermsOf:
    def test_terms_are_tokens_each_once(self) -> None:
        assert terms_of("Lamp, lamp; OAK") == ("_lamp", "_oak")

    def test_query_without_letters_has_no_terms(self) -> None:
        assert terms_of(" \t%_*\"'\\+-()~<>@") == terms_of("\U0001f600") == ()

    @given(TEXTS)
    def test_text_is_found_by_itself(self, text: str) -> None:
        assert matches(text, text) == bool(terms_of(text))

    @given(TEXTS, TEXTS)
    def test_text_is_found_by_the_words_of_each_part(self, some: str, rest: str) -> None:
        if terms_of(some):
            assert matches(some, f"{rest}\n{some}")
            assert matches(some, rest, some)

    @given(st.text(st.sampled_from("aqzéя1ß\u0301한"), min_size=1, max_size=12), st.data())
    def test_prefix_of_a_word_finds_it(self, word: str, data: st.DataObject) -> None:
        beginning = word[: data.draw(st.integers(1, len(word)))]

        if terms_of(beginning):
            assert matches(beginning, word)

    @given(
        st.text(st.sampled_from("aqxzя1"), min_size=1, max_size=6),
        st.text(st.sampled_from("aqxzя1"), min_size=1, max_size=6),
    )
    def test_text_that_is_no_prefix_of_a_word_does_not_find_it(
        self, beginning: str, word: str
    ) -> None:
        assert matches(beginning, word) == word.startswith(beginning)

    def test_distinct_characters_have_distinct_codes(self) -> None:
        # Letters that folding maps to themselves.
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
def test_equivalent_spelling_is_found(q: str, text: str) -> None:
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
def test_different_word_is_not_found(q: str, text: str) -> None:
    assert not matches(q, text)
