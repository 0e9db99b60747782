"""Normal forms equal those of the standard library, and take linear time."""

import random
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.normal_forms import MAX_MARKS, Form, is_stream_safe, normalize
from tests.watchdog import Watchdog

FORMS: tuple[Form, ...] = ("NFC", "NFD", "NFKC", "NFKD")

MARKS = (
    "\u0301\u0327\u0345\u0344\u093c\u094d\u3099\u0f71\u0f72\u0f73\u0f75\u0f81\uff9e\uff9f\U0001d165"
)
"""Non-starters of many combining classes, and characters that decompose into some."""

STARTERS = "aé\u1f82か\uff76\uac00\u1100\u1161\ufb2c\U0001d15e "

HOSTILE = {
    "two-kinds": "a" + "\u0301" * 50_000 + "\u0327" * 50_000,
    "two-kinds-in-turn": "a" + "\u0301\u0327" * 50_000,
    "all-kinds": "a" + "".join(random.Random(1).choices(MARKS, k=100_000)),  # noqa: S311 (no secret)
    "decomposed-canonically": "\u0f40" + "\u0f72\u0f73" * 50_000,
    "decomposed-compatibly": "\uff76" + "\u0301\uff9e" * 50_000,
    "letter-with-a-mark-of-its-own": "\u1f82" + "\u0327" * 100_000,
    "in-order": "a" + "\u0327" * 50_000 + "\u0301" * 50_000,
    "runs-just-short-enough": ("a" + "\u0301" * (MAX_MARKS - 1) + "\u0327") * 3000,
}


class TestNormalize:
    @pytest.mark.parametrize("form", FORMS)
    @given(text=st.text(st.sampled_from(MARKS + STARTERS), max_size=300))
    def test_result_equals_the_standard_library(self, form: Form, text: str) -> None:
        assert normalize(form, text) == unicodedata.normalize(form, text)

    @pytest.mark.parametrize("form", FORMS)
    @given(
        before=st.text(max_size=5),
        run=st.text(st.sampled_from(MARKS), min_size=MAX_MARKS, max_size=200),
        after=st.text(max_size=5),
    )
    def test_result_for_a_long_run_equals_the_standard_library(
        self, form: Form, before: str, run: str, after: str
    ) -> None:
        text = before + run + after

        assert normalize(form, text) == unicodedata.normalize(form, text)

    @pytest.mark.parametrize("form", FORMS)
    def test_every_character_is_classified_like_the_standard_library(self, form: Form) -> None:
        # Runs of marks around each character show whether it is correctly treated as a mark.
        run = "\u0301\u0327" * MAX_MARKS
        wrong = [
            hex(code)
            for code in range(0x80, sys.maxunicode + 1)
            if (character := chr(code)) != unicodedata.normalize("NFKD", character)
            or unicodedata.combining(character)
            if normalize(form, text := f"a{run}{character}{run}")
            != unicodedata.normalize(form, text)
        ]

        assert wrong == []

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
    def test_time_is_bounded_for_marks_in_any_order(self, form: Form, text: str) -> None:
        # The input has six times as many marks as the longest description has characters.
        with Watchdog(limit=0.15):
            normalize(form, text)


class TestIsStreamSafe:
    @pytest.mark.parametrize(
        ("text", "is_safe"),
        [
            ("", True),
            ("a" * 1000, True),
            ("é" * 1000, True),
            ("a" + "\u0301" * MAX_MARKS, True),
            ("a" + "\u0301" * (MAX_MARKS + 1), False),
            ("é" + "\u0301" * MAX_MARKS, False),
            ("a" + "\u0344" * (MAX_MARKS // 2), True),
            ("a" + "\u0344" * (MAX_MARKS // 2 + 1), False),
            ("\u0301" * (MAX_MARKS + 1), False),
            ("\uff76" + "\uff9e" * (MAX_MARKS + 1), False),
            (("a" + "\u0301" * MAX_MARKS) * 100, True),
        ],
    )
    def test_text_with_more_than_30_consecutive_marks_is_not_safe(
        self, text: str, is_safe: bool
    ) -> None:
        assert is_stream_safe(text) is is_safe
