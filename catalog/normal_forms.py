"""Unicode's normal forms (UAX #15) in time that is proportional to the text.

The standard library sorts the marks behind a letter by insertion, which is quadratic: for a
letter with 50,000 marks of two kinds, in the wrong order, it needs seconds.
"""

from itertools import groupby
from typing import Literal
from unicodedata import combining
from unicodedata import normalize as _normalize

import regex

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]

MAX_MARKS = 30
"""Non-starters in a row, as in Stream-Safe Text Format (UAX #15, section 13)."""

# Non-starters, and what is decomposed to some: three vowel signs of Tibetan, and the voiced sound
# marks of half-width kana. It may hold characters that are none to the standard library, whose
# Unicode may be older. A run is looked for where it begins and not from each of its marks.
_MARK = r"[\P{ccc=0}\u0f73\u0f75\u0f81\uff9e\uff9f]"
_LONG_RUN = regex.compile(rf"(?<!{_MARK}){_MARK}{{{MAX_MARKS + 1},}}+")


def normalize(form: Form, text: str) -> str:
    """Return a text's normal form, the same as ``unicodedata.normalize`` does."""
    if text.isascii():
        return text

    def in_order(run: "regex.Match[str]") -> str:
        return _ordered(form, run[0])

    return _normalize(form, _LONG_RUN.sub(in_order, text))


def is_stream_safe(text: str) -> bool:
    """Tell whether a text is in Stream-Safe Text Format (UAX #15, definition UAX15-D3).

    No language needs more than ``MAX_MARKS`` marks on a letter.
    """
    return text.isascii() or _LONG_RUN.search(normalize("NFKD", text)) is None


def _ordered(form: Form, marks: str) -> str:
    """Decompose marks and sort them by class; marks of one class keep their order."""
    decomposed_form: Form = "NFD" if form in {"NFC", "NFD"} else "NFKD"
    # In pieces so short that the standard library has sorted them soon.
    pieces = (marks[at : at + MAX_MARKS] for at in range(0, len(marks), MAX_MARKS))
    decomposed = "".join(_normalize(decomposed_form, piece) for piece in pieces)
    if all(map(combining, decomposed)):
        return "".join(sorted(decomposed, key=combining))
    # Nothing moves past a starter, whose class is 0.
    groups = groupby(decomposed, key=lambda character: combining(character) == 0)
    return "".join(
        "".join(group) if is_starter else "".join(sorted(group, key=combining))
        for is_starter, group in groups
    )
