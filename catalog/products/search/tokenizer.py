"""Tokenizer: the words of a text, encoded so that every engine's full-text index keeps them whole.

The engines tokenize differently: one cannot segment Chinese, another folds ``ß``, a third drops
``the`` and all words of fewer than three letters. So words are extracted here, alike for all
engines, and encoded in ASCII letters and digits; the encoding preserves prefixes. The indexes get
tokens that they can neither split nor drop: ``0c_lamp`` is the word ``lamp`` of a product in bucket
``0c``, which is derived from the id. So a search can query the index for the newest products with a
word, without fetching all of them.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import add

import regex

from catalog.concurrency.turns import Turn
from catalog.normal_forms import normalize

MARK = "_"
"""Separator before the word in a token; occurs nowhere else in it."""

BUCKETS = 256
BUCKET_IDS = 2**14
"""Consecutive ids in one bucket, whose tokens have the same prefix: the unit of a search. Prefixes
repeat after ``BUCKETS`` times as many ids."""

OWN = "id"
"""Beginning of ``own_token``."""

MAX_TOKEN_LENGTH = 80
"""Characters, including bucket and mark; InnoDB drops tokens longer than 84."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_NAMES = tuple(f"{_DIGITS[number // 36]}{_DIGITS[number % 36]}" for number in range(BUCKETS))
_MAX_LENGTH = MAX_TOKEN_LENGTH - len(_NAMES[0]) - len(MARK)

# Accents; the optional vowel points of Hebrew and Arabic, and the tatweel; variation selectors and
# joiners, soft hyphens, and other marks that only affect rendering or line breaks.
_IGNORED = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640"
    "\u064b-\u065f\u0670\u06d6-\u06dc\u00ad\u200c\u200d\u2060\ufeff\u20d0-\u20ff"
    "\ufe00-\ufe0f\U000e0100-\U000e01ef]+"
)
# Scripts without spaces between words; U+30FC is the prolonged sound mark of both kana.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc]"

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

_FOUR_WORDS = "\ufdfa"
_FIRST_AND_LAST_WORD = "\u0635\u0644\u0649 \u0648\u0633\u0644\u0645"
"""First and last word of the expansion of U+FDFA."""

_LEARNT = 2
"""Pieces cached from one text, so that texts that have nothing in common cost little more."""

_BETWEEN = "\0"
"""Separator of pieces that are folded together; no normal form joins others to it."""

_PART_LENGTH = 2_000
"""Characters of a long text that are folded or encoded at a time."""

_PLAIN = bytes(ord(chr(n).lower()) if chr(n).isalnum() else ord(" ") for n in range(128)).ljust(256)


def text_of(name: str, description: str | None) -> str:
    """Return the distinct words of a product, each with a space and the mark before it."""
    return _marked(_words(_joined(name, description)))


async def text_in_turns(name: str, description: str | None) -> str:
    """Return the words of ``text_of``; a long text does not block the event loop."""
    text = _joined(name, description)
    if len(text) <= _PART_LENGTH or text.isascii():
        return _marked(_words(text))
    words = _pieces.find(text)
    return _marked(await _words_in_turns(text) if words is None else words)


def tokens_of(text: str, product_id: int) -> str:
    """Return the tokens for the full-text index: each word with the bucket of the product's id."""
    return text.replace(MARK, f"{bucket_of(product_id)}{MARK}")


def own_token(product_id: int, version: int) -> str:
    """Return a token that only one row has; no name of a bucket begins with a letter.

    The last row that a transaction writes ends with it, so that ``index_reads`` can look it up.
    """
    return f"{OWN}{product_id}v{version}"


def bucket_of(product_id: int) -> str:
    """Return the name of an id's bucket: two characters."""
    return _NAMES[product_id // BUCKET_IDS % BUCKETS]


def buckets_between(first_id: int, last_id: int) -> tuple[str, ...]:
    """Return the names of the buckets of an inclusive range of ids."""
    first, last = first_id // BUCKET_IDS, last_id // BUCKET_IDS
    if last - first >= BUCKETS:
        return _NAMES
    return tuple(_NAMES[number % BUCKETS] for number in range(first, last + 1))


def terms_of(q: str) -> tuple[str, ...]:
    """Return the terms of a search: marked word prefixes, all of which a product must have."""
    # The last character of a run without spaces is already part of the pair before it.
    words = _cut_out(_encoded(_folded(q)), with_last=False)
    return tuple(f"{MARK}{word}" for word in _each_once(words))


def _joined(name: str, description: str | None) -> str:
    return name if description is None else f"{name}\n{description}"


def _marked(words: Iterable[str]) -> str:
    separator = f" {MARK}"
    joined = separator.join(words)
    return f"{separator}{joined}" if joined else ""


def _words(text: str) -> Iterable[str]:
    """Return the distinct words of a text, encoded."""
    # Most text is ASCII, for which this takes half of the time.
    return _plain_words(text) if text.isascii() else _pieces.words_of(text)


def _folded_words(text: str) -> Iterable[str]:
    text = _folded(_without_repeats(text))
    return _plain_words(text) if text.isascii() else _encoded_words(text)


def _encoded_words(text: str) -> Iterable[str]:
    return _each_once(_cut_out(_encoded(text), with_last=True))


def _plain_words(text: str) -> Iterable[str]:
    plain = text.encode("ascii").translate(_PLAIN).decode("ascii")
    return _each_once(plain.replace("q", "qq").split())


def _without_repeats(text: str) -> str:
    """Abbreviate all but the first U+FDFA, a ligature of four words; the set of words is the same.

    Folding expands it to 18 characters, and any other character to 8 at most. Its two middle words
    are always the same, so one occurrence is enough for them.
    """
    before, sign, behind = text.partition(_FOUR_WORDS)
    return f"{before}{sign}{behind.replace(sign, _FIRST_AND_LAST_WORD)}" if sign else text


def _folded(text: str) -> str:
    """Fold case, width and accents."""
    if text.isascii():
        return text.lower()
    folded = _IGNORED.sub("", normalize("NFKD", text)).casefold()
    # One replace per letter, because most do not occur; a translation table costs a look-up for
    # each character.
    for letter, plain in _LATIN.items():
        folded = folded.replace(letter, plain)
    # Recompose, so that each Hangul syllable is one letter and not three.
    return normalize("NFKC", folded)


def _each_once(words: Iterable[str]) -> Iterable[str]:
    """Remove duplicates, and truncate words that are too long, at a character boundary."""
    distinct = dict.fromkeys(words)
    if max(map(len, distinct), default=0) > _MAX_LENGTH:
        return dict.fromkeys(map(_cut, distinct))
    return distinct


def _cut(word: str) -> str:
    codes = _WHOLE_CODES.match(word, 0, _MAX_LENGTH)
    return codes[0] if codes else ""


def _encoded(text: str) -> str:
    """Encode a text, with spaces for characters that are not part of a word."""
    return _without_marks(f" {_codes.of(text)}")


def _without_marks(encoded: str) -> str:
    """Remove the marks' signs, and the marks with which no word can begin."""
    if _MARK_SIGN in encoded:
        encoded = _LEADING_MARKS.sub(" ", encoded).replace(_MARK_SIGN, "")
    return encoded


def _cut_out(encoded: str, *, with_last: bool) -> list[str]:
    """Split an encoded text into words.

    A run in a script without spaces yields its pairs of adjacent characters and, if requested, its
    last character; a run of one character is a word.
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
        # Words of other scripts directly precede or follow such a run.
        last, is_alone = _extend(words, parts, "", is_alone=True, with_last=with_last)
        if last and (with_last or is_alone):
            words.append(last)
        if rest:
            words.append(rest)
    return words


def _extend(
    words: list[str], parts: Iterable[str], last: str, *, is_alone: bool, with_last: bool
) -> tuple[str, bool]:
    """Add the words of a chunk's next parts.

    Args:
        words: where to add them.
        parts: each ends with the code of a character in a script without spaces.
        last: the code at the end of the parts before; empty if there are none.
        is_alone: whether that code is in no pair yet.
        with_last: whether the last character of a run is a word.

    Returns:
        the last two arguments for the parts that follow.
    """
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
    return last, is_alone


async def _words_in_turns(text: str) -> Iterable[str]:
    """Return the words of ``_folded_words``, with a turn for others between parts of the text."""
    turn = Turn()
    folded = []
    for part in _parts(_without_repeats(text)):
        folded.append(_folded(part))
        await turn.yield_if_over()
    text = "".join(folded)
    if text.isascii():
        return _plain_words(text)
    codes = [" "]
    for start in range(0, len(text), _PART_LENGTH):
        codes.append(_codes.of(text[start : start + _PART_LENGTH]))
        await turn.yield_if_over()
    encoded = _without_marks("".join(codes))
    await turn.yield_if_over()
    distinct: dict[str, None] = {}
    for words in _lots_of_words(encoded):
        distinct.update(dict.fromkeys(_each_once(words)))
        await turn.yield_if_over()
    return distinct


def _parts(text: str) -> Iterator[str]:
    """Cut a text into parts that can be folded one by one."""
    start = 0
    while found := _CUT.search(text, start + _PART_LENGTH):
        yield text[start : found.start()]
        start = found.start()
    yield text[start:]


def _lots_of_words(encoded: str) -> Iterator[list[str]]:
    """Split an encoded text into the words of ``_cut_out``, not too many at a time."""
    chunks = encoded.split()
    start = size = 0
    for number, chunk in enumerate(chunks):
        size += len(chunk) + 1
        if size <= _PART_LENGTH * _UNSPACED_LENGTH:
            continue
        yield _cut_out(" ".join(chunks[start:number]), with_last=True)
        yield from _lots_of_chunk(chunk)
        start, size = number + 1, 0
    yield _cut_out(" ".join(chunks[start:]), with_last=True)


def _lots_of_chunk(chunk: str) -> Iterator[list[str]]:
    *parts, rest = chunk.split(_UNSPACED_SIGN)
    last, is_alone = "", True
    for start in range(0, len(parts), _PART_LENGTH):
        words: list[str] = []
        lot = islice(parts, start, start + _PART_LENGTH)
        last, is_alone = _extend(words, lot, last, is_alone=is_alone, with_last=True)
        yield words
    yield [word for word in (last, rest) if word]


# Code of a character: ASCII letters and digits are their own code, except "q", with which all other
# codes begin. Other characters of words have "q" and four more characters, followed by a sign in
# scripts without spaces, and preceded by one if no word can begin with the character. All others
# are a space. No code is a prefix of another, so encoded words have a common prefix only where the
# words do.
_CODE_LENGTH = 5
_UNSPACED_SIGN = "\x01"
_UNSPACED_LENGTH = _CODE_LENGTH + len(_UNSPACED_SIGN)
_MARK_SIGN = "\x02"

# Combining marks that do not follow a letter of a word in a script with spaces.
_LEADING_MARKS = re.compile(
    rf"{_MARK_SIGN}(?<=[ {_UNSPACED_SIGN}]{_MARK_SIGN}).{{5}}(?:{_MARK_SIGN}.{{5}})*+"
)

# Characters before which a text can be cut before it is folded, because no normal form joins their
# decomposition to what precedes it, and folding does not drop its beginning. The ranges are letters
# whose decomposition begins with a mark, a vowel of Hangul or a tatweel.
_CUT = regex.compile(
    r"[[\p{L}\p{N}\p{S}\p{Z}\s]&&\p{ccc=0}&&\p{NFC_QC=Y}"
    r"--[\u0640\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\ud7b0-\ud7fb\ufcf2-\ufcf4\ufe70-\ufe7f\uff9e-\uffdc]]",
    regex.VERSION1,
)
_WHOLE_CODES = re.compile(r"(?:[^q]|q(?:q|[^q].{3}))*+")

# A pair of digits holds 1,296 values; the first digit of U+10FFFF = 1,114,111 is below "q".
_PAIRS = tuple(f"{first}{second}" for first in _DIGITS for second in _DIGITS)

_ASCII_CODES = {letter: letter for letter in f"{_DIGITS}{_DIGITS[10:].upper()}"} | {"q": "qq"}

_KINDS = (
    # In scripts with spaces: characters that can begin a word, then those that can only continue
    # one.
    (regex.compile(rf"[[\p{{L}}\p{{N}}]--{_UNSPACED}]+", regex.VERSION1), "", ""),
    (regex.compile(rf"[\p{{M}}--{_UNSPACED}]+", regex.VERSION1), _MARK_SIGN, ""),
    (
        regex.compile(rf"[{_UNSPACED}&&[\p{{L}}\p{{M}}\p{{N}}]]+", regex.VERSION1),
        "",
        _UNSPACED_SIGN,
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
    codes = dict.fromkeys(characters, " ")
    # Sorted, because neighbouring characters are mostly of one kind and so form long runs.
    ordered = "".join(sorted(codes))
    for kind, before, behind in _KINDS:
        for run in kind.findall(ordered):
            for character in run:
                high, low = divmod(ord(character), len(_PAIRS))
                codes[character] = f"{before}q{_PAIRS[high]}{_PAIRS[low]}{behind}"
    codes.update((each, _ASCII_CODES[each]) for each in _ASCII_CODES.keys() & codes.keys())
    return codes


_codes = _Codes(limit=32_768)


class _Pieces:
    """Cache of the words in pieces between spaces, most of which occur again in other texts.

    No normal form joins characters across a space, so the words of a text are those of its pieces.

    Args:
        limit: the maximum number of cached pieces.
        longest: the maximum number of characters learnt from one text; a script without spaces has
            longer pieces, which hardly ever occur again.
    """

    def __init__(self, limit: int, longest: int) -> None:
        self._limit = limit
        self._longest = longest
        self._known: dict[str, tuple[str, ...]] = {}

    def words_of(self, text: str) -> Iterable[str]:
        """Return the distinct words of a text, encoded."""
        words = self.find(text)
        return _folded_words(text) if words is None else words

    def find(self, text: str) -> Iterable[str] | None:
        """Return the distinct words of a text; None if some are not cached, of which it learns."""
        pieces = text.split()
        known = self._known
        try:
            return dict.fromkeys(chain.from_iterable(map(known.__getitem__, pieces)))
        except KeyError:
            pass
        self._learn([piece for piece in pieces if piece not in known][:_LEARNT])
        return None

    def _learn(self, pieces: Sequence[str]) -> None:
        text = _BETWEEN.join(pieces)
        if len(text) > self._longest or text.count(_BETWEEN) >= len(pieces) or _FOUR_WORDS in text:
            return
        words = map(tuple, map(_encoded_words, _folded(text).split(_BETWEEN)))
        # Replaced as in _Codes.
        known = self._known if len(self._known) + len(pieces) <= self._limit else {}
        known.update(zip(pieces, words, strict=True))
        self._known = known


_pieces = _Pieces(limit=8192, longest=60)
