"""Folding of texts: equal words are written alike, whatever their case, width and accents."""

import re
from collections.abc import Iterator

import regex

from catalog.normal_forms import normalize

# Accents; the optional vowel points of Hebrew and Arabic, and the tatweel; variation selectors and
# joiners, soft hyphens, and other marks that only affect rendering or line breaks.
_IGNORED = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640"
    "\u064b-\u065f\u0670\u06d6-\u06dc\u00ad\u200c\u200d\u2060\ufeff\u20d0-\u20ff"
    "\ufe00-\ufe0f\U000e0100-\U000e01ef]+"
)
# Unicode does not decompose these, but on keyboards without these letters they are typed like this.
_LATIN = {
    "ø": "o",
    "ł": "l",
    "đ": "d",
    "ð": "d",
    "þ": "th",
    "æ": "ae",
    "œ": "oe",
    "\u0131": "i",
    "ħ": "h",
}

# Characters before which a text can be cut before it is folded, because no normal form joins their
# decomposition to what precedes it, and folding does not drop its beginning. The ranges are letters
# whose decomposition begins with a mark, a vowel of Hangul or a tatweel.
_CUT = regex.compile(
    r"[[\p{L}\p{N}\p{S}\p{Z}\s]&&\p{ccc=0}&&\p{NFC_QC=Y}"
    r"--[\u0640\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\ud7b0-\ud7fb\ufcf2-\ufcf4\ufe70-\ufe7f\uff9e-\uffdc]]",
    regex.VERSION1,
)


def folded(text: str) -> str:
    """Fold case, width and accents."""
    if text.isascii():
        return text.lower()
    text = _IGNORED.sub("", normalize("NFKD", text)).casefold()
    # One replace per letter, because most do not occur; a translation table costs a look-up for
    # each character.
    for letter, plain in _LATIN.items():
        text = text.replace(letter, plain)
    # Recompose, so that each Hangul syllable is one letter and not three.
    return normalize("NFKC", text)


def parts_of(text: str, length: int) -> Iterator[str]:
    """Cut a text into parts of at least some length, each of which can be folded by itself."""
    start = 0
    while found := _CUT.search(text, start + length):
        yield text[start : found.start()]
        start = found.start()
    yield text[start:]
