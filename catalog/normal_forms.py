"""Unicode normal forms (UAX #15) in linear time.

The standard library sorts the marks after a letter by insertion, which is quadratic: a letter with
50,000 marks of two classes in the wrong order takes it seconds.
"""

from itertools import groupby
from typing import Literal
from unicodedata import combining
from unicodedata import normalize as _normalize

import regex

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]

MAX_MARKS = 30
"""Consecutive non-starters allowed by Stream-Safe Text Format (UAX #15, section 13)."""

# Non-starters, and characters that decompose to some: three Tibetan vowel signs, and the voiced
# sound marks of half-width kana. The class may contain characters that are starters to the standard
# library, whose Unicode version may be older. The look-behind matches a run only at its first mark,
# not from each of them.
_MARK = r"[\P{ccc=0}\u0f73\u0f75\u0f81\uff9e\uff9f]"
_LONG_RUN = regex.compile(rf"(?<!{_MARK}){_MARK}{{{MAX_MARKS + 1},}}+")


def normalize(form: Form, text: str) -> str:
    """Return a text's normal form; the result equals ``unicodedata.normalize``'s."""
    if text.isascii():
        return text

    def in_order(run: "regex.Match[str]") -> str:
        return _ordered(form, run[0])

    return _normalize(form, _LONG_RUN.sub(in_order, text))


def is_stream_safe(text: str) -> bool:
    """Tell whether a text is in Stream-Safe Text Format (UAX #15, definition UAX15-D3).

    No language needs more than ``MAX_MARKS`` marks on one letter.
    """
    return text.isascii() or _LONG_RUN.search(normalize("NFKD", text)) is None


def _ordered(form: Form, marks: str) -> str:
    """Decompose marks and sort them by class; marks of one class keep their order."""
    decomposed_form: Form = "NFD" if form in {"NFC", "NFD"} else "NFKD"
    # Pieces short enough that the standard library's quadratic sort is cheap.
    pieces = (marks[at : at + MAX_MARKS] for at in range(0, len(marks), MAX_MARKS))
    decomposed = "".join(_normalize(decomposed_form, piece) for piece in pieces)
    if all(map(combining, decomposed)):
        return "".join(sorted(decomposed, key=combining))
    # Marks must not be reordered across a starter, whose class is 0.
    groups = groupby(decomposed, key=lambda character: combining(character) == 0)
    return "".join(
        "".join(group) if is_starter else "".join(sorted(group, key=combining))
        for is_starter, group in groups
    )
