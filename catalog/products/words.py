"""What is searched for: the words of a text, in a spelling that every engine's index takes whole.

The engines cut text into words each in its own way: one knows no Chinese, another folds ``ß``, a
third leaves out ``the`` and whatever is shorter than three letters. So the words are found here,
once for all engines, and written in ASCII letters and digits; what begins a word begins what is
written for it. The indexes get tokens that they can neither cut nor leave out: ``0c_lamp`` is the
word ``lamp`` of a product in bucket ``0c``, which goes by the id. So a search can ask the index for
the newest products that have a word, and need not get all of them.
"""

from collections.abc import Iterable
from functools import lru_cache

import regex

from catalog.normal_forms import normalize

MARK = "_"
"""What stands before a word in its token, and nowhere else in it."""

BUCKETS = 256
BUCKET_IDS = 2**14
"""Products whose ids follow one another and whose tokens begin alike; so many of them are searched
at a time. After ``BUCKETS`` times as many ids the same beginning comes again."""

MAX_TOKEN_LENGTH = 80
"""Characters, the bucket and the mark among them; InnoDB leaves out what is longer than 84."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_NAMES = tuple(f"{_DIGITS[number // 36]}{_DIGITS[number % 36]}" for number in range(BUCKETS))
_MAX_LENGTH = MAX_TOKEN_LENGTH - len(_NAMES[0]) - len(MARK)

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

_PLAIN = bytes(ord(chr(n).lower()) if chr(n).isalnum() else ord(" ") for n in range(128)).ljust(256)


def text_of(name: str, description: str | None) -> str:
    """The words of a product, each once, with a space and the mark before every one."""
    text = name if description is None else f"{name}\n{description}"
    separator = f" {MARK}"
    words = separator.join(_words(text))
    return f"{separator}{words}" if words else ""


def tokens_of(text: str, product_id: int) -> str:
    """The words of a product as the index takes them: each with the name of the id's bucket."""
    return text.replace(MARK, f"{bucket_of(product_id)}{MARK}")


def bucket_of(product_id: int) -> str:
    """The name of a bucket: two characters."""
    return _NAMES[product_id // BUCKET_IDS % BUCKETS]


def buckets_between(first_id: int, last_id: int) -> tuple[str, ...]:
    """The names of the buckets that ids from one to another have."""
    first, last = first_id // BUCKET_IDS, last_id // BUCKET_IDS
    if last - first >= BUCKETS:
        return _NAMES
    return tuple(_NAMES[number % BUCKETS] for number in range(first, last + 1))


def terms_of(q: str) -> tuple[str, ...]:
    """What a search asks for: words after the mark, each of which must begin one of a product's."""
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
    bare = _IGNORED.sub("", normalize("NFKD", text))
    # Composed again: the syllables of Hangul are a letter each then, and not three.
    return normalize("NFKC", bare.casefold().translate(_LATIN))


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
