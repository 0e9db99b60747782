"""Codes of characters in tokens: ASCII, so that no engine splits or folds them.

ASCII letters and digits are their own code, except "q", with which all other codes begin. Other
characters of words have "q" and four more characters, followed by a sign in scripts without spaces,
and preceded by one if no word can begin with the character. All others are a space. No code is a
prefix of another, so encoded words have a common prefix only where the words do.
"""

import re
from collections.abc import Iterable

import regex

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

# Scripts without spaces between words; U+30FC is the prolonged sound mark of both kana.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc]"

CODE_LENGTH = 5
UNSPACED_SIGN = "\x01"
UNSPACED_LENGTH = CODE_LENGTH + len(UNSPACED_SIGN)
_MARK_SIGN = "\x02"

# Combining marks that do not follow a letter of a word in a script with spaces.
_LEADING_MARKS = re.compile(
    rf"{_MARK_SIGN}(?<=[ {UNSPACED_SIGN}]{_MARK_SIGN}).{{5}}(?:{_MARK_SIGN}.{{5}})*+"
)

WHOLE_CODES = re.compile(r"(?:[^q]|q(?:q|[^q].{3}))*+")

# A pair of digits holds 1,296 values; the first digit of U+10FFFF = 1,114,111 is below "q".
_PAIRS = tuple(f"{first}{second}" for first in DIGITS for second in DIGITS)

_ASCII_CODES = {letter: letter for letter in f"{DIGITS}{DIGITS[10:].upper()}"} | {"q": "qq"}

_KINDS = (
    # In scripts with spaces: characters that can begin a word, then those that can only continue
    # one.
    (regex.compile(rf"[[\p{{L}}\p{{N}}]--{_UNSPACED}]+", regex.VERSION1), "", ""),
    (regex.compile(rf"[\p{{M}}--{_UNSPACED}]+", regex.VERSION1), _MARK_SIGN, ""),
    (
        regex.compile(rf"[{_UNSPACED}&&[\p{{L}}\p{{M}}\p{{N}}]]+", regex.VERSION1),
        "",
        UNSPACED_SIGN,
    ),
)


class _Codes:
    """Cache of character codes; computing a code takes five times as long as looking it up.

    Args:
        limit: the maximum number of cached codes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[str, str] = {}

    def of(self, text: str) -> str:
        """Return the codes of a text's characters, concatenated."""
        known = self._known
        try:
            return "".join(map(known.__getitem__, text))
        except KeyError:
            pass
        unknown = set(text).difference(known)
        if len(known) + len(unknown) > self._limit:
            # Replace the dictionary instead of clearing it: another thread may be reading it.
            known, unknown = {}, set(text)
        # One update, so that other threads see all codes at once.
        known.update(_made_codes(unknown))
        self._known = known
        return "".join(map(known.__getitem__, text))


def _made_codes(characters: Iterable[str]) -> dict[str, str]:
    made = dict.fromkeys(characters, " ")
    # Sorted, because neighbouring characters are mostly of one kind and so form long runs.
    ordered = "".join(sorted(made))
    for kind, before, behind in _KINDS:
        for run in kind.findall(ordered):
            for character in run:
                high, low = divmod(ord(character), len(_PAIRS))
                made[character] = f"{before}q{_PAIRS[high]}{_PAIRS[low]}{behind}"
    made.update((each, _ASCII_CODES[each]) for each in _ASCII_CODES.keys() & made.keys())
    return made


codes = _Codes(limit=32_768)


def without_marks(encoded: str) -> str:
    """Remove the marks' signs, and the marks with which no word can begin."""
    if _MARK_SIGN in encoded:
        encoded = _LEADING_MARKS.sub(" ", encoded).replace(_MARK_SIGN, "")
    return encoded
