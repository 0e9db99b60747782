"""What is searched for: the words of a text, in a spelling that every engine's index takes whole.

The engines cut text into words each in its own way: one knows no Chinese, another folds ``ß``, a
third leaves out ``the`` and whatever is shorter than three letters. So the words are found here,
once for all engines, and the indexes get tokens of ASCII letters and digits that they can neither
cut nor leave out. What begins a word begins its token.
"""

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import regex

MARK = "xx"
"""What every token begins with: InnoDB leaves out words of two letters and those on its list of
stopwords, none of which begins so."""

MAX_TOKEN_LENGTH = 80
"""Characters, the mark among them; InnoDB leaves out what is longer than 84."""

_MAX_LENGTH = MAX_TOKEN_LENGTH - len(MARK)

# Accents; vowel points of Hebrew and Arabic and the stretched line, which are written or not; what
# only says how to draw the character before it, or where a line may break.
_IGNORED = regex.compile(
    r"[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640"
    r"\u064b-\u065f\u0670\u06d6-\u06dc\u00ad\u200c\u200d\u2060\ufeff\u20d0-\u20ff"
    r"\ufe00-\ufe0f\U000e0100-\U000e01ef]+"
)
# Scripts that put no spaces between words; U+30FC lengthens a syllable of both kana.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc]"
_RUNS = regex.compile(
    rf"[[\p{{L}}\p{{N}}]--{_UNSPACED}][[\p{{L}}\p{{M}}\p{{N}}]--{_UNSPACED}]*"
    rf"|[{_UNSPACED}&&[\p{{L}}\p{{M}}\p{{N}}]]+",
    regex.VERSION1,
)
_BEGINS_UNSPACED = regex.compile(_UNSPACED, regex.VERSION1)

# No accents to Unicode, but to those whose keyboards lack these letters.
_LATIN = str.maketrans(
    {
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
)

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PLAIN = bytes(ord(chr(n).lower()) if chr(n).isalnum() else ord(" ") for n in range(128)).ljust(256)


def text_of(name: str, description: str | None) -> str:
    """The tokens of a product, each once, with a space before every one."""
    text = name if description is None else f"{name}\n{description}"
    separator = f" {MARK}"
    words = separator.join(_words(text))
    return f"{separator}{words}" if words else ""


def terms_of(q: str) -> tuple[str, ...]:
    """The tokens that a search asks for: each must begin some token of a product."""
    found: list[str] = []
    for run in _RUNS.findall(_folded(q)):
        words = _words_of_run(run)
        # The last character alone begins the pair before it.
        found += words[:-1] if len(words) > 1 else words
    return tuple(f"{MARK}{word}" for word in dict.fromkeys(found))


def _words(text: str) -> Iterable[str]:
    """The words of a text, encoded, each once."""
    if not text.isascii():
        text = _folded(text)
        if not text.isascii():
            runs = _RUNS.findall(text)
            return dict.fromkeys(word for run in runs for word in _words_of_run(run))
    # Most text is plain, and this takes half of the time.
    plain = text.encode("ascii").translate(_PLAIN).decode("ascii")
    words = dict.fromkeys(plain.replace("q", "qq").split())
    if max(map(len, words), default=0) > _MAX_LENGTH:
        return dict.fromkeys(_encoded(word.replace("qq", "q")) for word in words)
    return words


def _folded(text: str) -> str:
    """Text in which all that is held for the same is the same: case, width, accents."""
    if text.isascii():
        return text.lower()
    bare = _IGNORED.sub("", unicodedata.normalize("NFKD", text))
    # Composed again: the syllables of Hangul are a letter each then, and not three.
    return unicodedata.normalize("NFKC", bare.casefold().translate(_LATIN))


@lru_cache(maxsize=16_384)
def _words_of_run(run: str) -> tuple[str, ...]:
    """A word, encoded; of a run without spaces, its pairs of characters and its last one."""
    if not _BEGINS_UNSPACED.match(run):
        return (_encoded(run),)
    return tuple(_encoded(run[at : at + 2]) for at in range(len(run)))


def _encoded(word: str) -> str:
    """A word in letters and digits, cut between two characters where it is too long.

    No character's code begins another's, so that two codes begin alike only where words do.
    """
    encoded = ""
    for character in word:
        code = _code(character)
        if len(encoded) + len(code) > _MAX_LENGTH:
            break
        encoded += code
    return encoded


def _code(character: str) -> str:
    if character == "q":
        return "qq"
    if character.isascii():
        return character
    # Four digits hold 1,679,615, and U+10FFFF is 1,114,111, whose first digit comes before "q".
    number, code = ord(character), ""
    for _ in range(4):
        number, digit = divmod(number, 36)
        code = _DIGITS[digit] + code
    return f"q{code}"
