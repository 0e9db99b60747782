"""What is searched for: the words of a text, in a spelling that every engine's index takes whole.

The engines cut text into words each in its own way: one knows no Chinese, another folds ``ß``, a
third leaves out ``the`` and whatever is shorter than three letters. So the words are found here,
once for all engines, and written in ASCII letters and digits; what begins a word begins what is
written for it. The indexes get tokens that they can neither cut nor leave out: ``0c_lamp`` is the
word ``lamp`` of a product in bucket ``0c``, which goes by the id. So a search can ask the index for
the newest products that have a word, and need not get all of them.
"""

import re
from collections.abc import Iterable
from itertools import islice
from operator import add

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
_IGNORED = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640"
    "\u064b-\u065f\u0670\u06d6-\u06dc\u00ad\u200c\u200d\u2060\ufeff\u20d0-\u20ff"
    "\ufe00-\ufe0f\U000e0100-\U000e01ef]+"
)
# Scripts that put no spaces between words; U+30FC lengthens a syllable of both kana.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc]"

# No accents to Unicode, but to those whose keyboards lack these letters.
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

_FIRST_AND_LAST_WORD = "\u0635\u0644\u0649 \u0648\u0633\u0644\u0645"
"""Of U+FDFA."""

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
    # The last character of a run without spaces begins the pair before it.
    words = _cut_out(_encoded(_folded(q)), with_last=False)
    return tuple(f"{MARK}{word}" for word in _each_once(words))


def _words(text: str) -> Iterable[str]:
    """The words of a text, encoded, each once."""
    if not text.isascii():
        text = _folded(_without_repeats(text))
        if not text.isascii():
            return _each_once(_cut_out(_encoded(text), with_last=True))
    # Most text is plain, and this takes half of the time.
    plain = text.encode("ascii").translate(_PLAIN).decode("ascii")
    return _each_once(plain.replace("q", "qq").split())


def _without_repeats(text: str) -> str:
    """A text in which the sign for four words is written out but once; it has the same words.

    To fold, it becomes 18 characters; no other becomes more than 8. The two words in its middle
    are always the same, and need to be found once.
    """
    before, sign, behind = text.partition("\ufdfa")
    return f"{before}{sign}{behind.replace(sign, _FIRST_AND_LAST_WORD)}" if sign else text


def _folded(text: str) -> str:
    """Text in which all that is held for the same is the same: case, width, accents."""
    if text.isascii():
        return text.lower()
    folded = _IGNORED.sub("", normalize("NFKD", text)).casefold()
    # Letter by letter, because most are not there; a table is looked at for each character.
    for letter, plain in _LATIN.items():
        folded = folded.replace(letter, plain)
    # Composed again: the syllables of Hangul are a letter each then, and not three.
    return normalize("NFKC", folded)


def _each_once(words: Iterable[str]) -> Iterable[str]:
    """Encoded words, each once, cut between two characters where they are too long."""
    distinct = dict.fromkeys(words)
    if max(map(len, distinct), default=0) > _MAX_LENGTH:
        return dict.fromkeys(map(_cut, distinct))
    return distinct


def _cut(word: str) -> str:
    codes = _WHOLE_CODES.match(word, 0, _MAX_LENGTH)
    return codes[0] if codes else ""


def _encoded(text: str) -> str:
    """A text in codes, with spaces where nothing is part of a word."""
    encoded = f" {_codes.of(text)}"
    if _MARK_SIGN in encoded:
        encoded = _LEADING_MARKS.sub(" ", encoded).replace(_MARK_SIGN, "")
    return encoded


def _cut_out(encoded: str, *, with_last: bool) -> list[str]:
    """The words of an encoded text.

    Of a run without spaces they are its pairs of characters and, if asked for, its last one; a
    run of one character is a word.
    """
    if _UNSPACED_SIGN not in encoded:
        return encoded.split()
    words: list[str] = []
    for chunk in encoded.split():
        *parts, rest = chunk.split(_UNSPACED_SIGN)
        if parts and len(chunk) == len(parts) * _UNSPACED_LENGTH:
            words.extend(map(add, parts, islice(parts, 1, None)))
            if with_last or len(parts) == 1:
                words.append(parts[-1])
            continue
        # Words with spaces stand directly before or behind such a run.
        last, is_alone = "", True
        for part in parts:
            code = part[-_CODE_LENGTH:]
            if len(part) > _CODE_LENGTH:
                if last and (with_last or is_alone):
                    words.append(last)
                words.append(part[:-_CODE_LENGTH])
                is_alone = True
            elif last:
                words.append(last + code)
                is_alone = False
            last = code
        if last and (with_last or is_alone):
            words.append(last)
        if rest:
            words.append(rest)
    return words


# What a character is written as: itself, if it is a letter or a digit of ASCII, but for "q", with
# which all other codes begin; "q" and four more, if it can be part of a word, with a sign behind
# it in a script without spaces, and one before it if no word begins with it; and else a space. No
# character's code begins another's, so that two codes begin alike only where words do.
_CODE_LENGTH = 5
_UNSPACED_SIGN = "\x01"
_UNSPACED_LENGTH = _CODE_LENGTH + len(_UNSPACED_SIGN)
_MARK_SIGN = "\x02"

# Marks that follow no letter of a word with spaces around it.
_LEADING_MARKS = re.compile(
    rf"{_MARK_SIGN}(?<=[ {_UNSPACED_SIGN}]{_MARK_SIGN}).{{5}}(?:{_MARK_SIGN}.{{5}})*+"
)
_WHOLE_CODES = re.compile(r"(?:[^q]|q(?:q|[^q].{3}))*+")

# Two digits hold 1,296; U+10FFFF is 1,114,111, whose first digit comes before "q".
_PAIRS = tuple(f"{first}{second}" for first in _DIGITS for second in _DIGITS)

_ASCII_CODES = {letter: letter for letter in f"{_DIGITS}{_DIGITS[10:].upper()}"} | {"q": "qq"}

_KINDS = (
    # What can begin a word, then what can only go on with one, in scripts with spaces.
    (regex.compile(rf"[[\p{{L}}\p{{N}}]--{_UNSPACED}]+", regex.VERSION1), "", ""),
    (regex.compile(rf"[\p{{M}}--{_UNSPACED}]+", regex.VERSION1), _MARK_SIGN, ""),
    (
        regex.compile(rf"[{_UNSPACED}&&[\p{{L}}\p{{M}}\p{{N}}]]+", regex.VERSION1),
        "",
        _UNSPACED_SIGN,
    ),
)


class _Codes:
    """Codes of characters that have occurred; making one takes five times of a look-up.

    Args:
        limit: how many are kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[str, str] = {}

    def of(self, text: str) -> str:
        """Return what the characters of a text are written as."""
        known = self._known
        try:
            return "".join(map(known.__getitem__, text))
        except KeyError:
            pass
        unknown = set(text).difference(known)
        if len(known) + len(unknown) > self._limit:
            # Another one, because a thread may look at this one.
            known, unknown = {}, set(text)
        # All at once, for other threads.
        known.update(_made_codes(unknown))
        self._known = known
        return "".join(map(known.__getitem__, text))


def _made_codes(characters: Iterable[str]) -> dict[str, str]:
    codes = dict.fromkeys(characters, " ")
    # In order, because neighbours are mostly of one kind.
    ordered = "".join(sorted(codes))
    for kind, before, behind in _KINDS:
        for run in kind.findall(ordered):
            for character in run:
                high, low = divmod(ord(character), len(_PAIRS))
                codes[character] = f"{before}q{_PAIRS[high]}{_PAIRS[low]}{behind}"
    codes.update((each, _ASCII_CODES[each]) for each in _ASCII_CODES.keys() & codes.keys())
    return codes


_codes = _Codes(limit=32_768)
