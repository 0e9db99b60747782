"""Tokenizer: the words of a text, encoded so that every engine's full-text index keeps them whole.

The engines tokenize differently: one cannot segment Chinese, another folds ``ß``, a third drops
``the`` and all words of fewer than three letters. So words are extracted here, alike for all
engines, and encoded in ASCII letters and digits; the encoding preserves prefixes. The indexes get
tokens that they can neither split nor drop: ``0c_lamp`` is the word ``lamp`` of a product in bucket
``0c``, which is derived from the id. So a search can query the index for the newest products with a
word, without fetching all of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import add

from catalog.concurrency.turns import Turn
from catalog.products.search.character_codes import (
    CODE_LENGTH,
    DIGITS,
    UNSPACED_LENGTH,
    UNSPACED_SIGN,
    WHOLE_CODES,
    codes,
    without_marks,
)
from catalog.products.search.folding import folded, parts_of

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

_NAMES = tuple(f"{DIGITS[number // 36]}{DIGITS[number % 36]}" for number in range(BUCKETS))
_MAX_LENGTH = MAX_TOKEN_LENGTH - len(_NAMES[0]) - len(MARK)

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
    words = _cut_out(_encoded(folded(q)), with_last=False)
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
    text = folded(_without_repeats(text))
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


def _each_once(words: Iterable[str]) -> Iterable[str]:
    """Remove duplicates, and truncate words that are too long, at a character boundary."""
    distinct = dict.fromkeys(words)
    if max(map(len, distinct), default=0) > _MAX_LENGTH:
        return dict.fromkeys(map(_cut, distinct))
    return distinct


def _cut(word: str) -> str:
    whole = WHOLE_CODES.match(word, 0, _MAX_LENGTH)
    return whole[0] if whole else ""


def _encoded(text: str) -> str:
    """Encode a text, with spaces for characters that are not part of a word."""
    return without_marks(f" {codes.of(text)}")


def _cut_out(encoded: str, *, with_last: bool) -> list[str]:
    """Split an encoded text into words.

    A run in a script without spaces yields its pairs of adjacent characters and, if requested, its
    last character; a run of one character is a word.
    """
    if UNSPACED_SIGN not in encoded:
        return encoded.split()
    words: list[str] = []
    for chunk in encoded.split():
        *parts, rest = chunk.split(UNSPACED_SIGN)
        if parts and len(chunk) == len(parts) * UNSPACED_LENGTH:
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
        code = part[-CODE_LENGTH:]
        if len(part) > CODE_LENGTH:
            if last and (with_last or is_alone):
                words.append(last)
            words.append(part[:-CODE_LENGTH])
            is_alone = True
        elif last:
            words.append(last + code)
            is_alone = False
        last = code
    return last, is_alone


async def _words_in_turns(text: str) -> Iterable[str]:
    """Return the words of ``_folded_words``, with a turn for others between parts of the text."""
    turn = Turn()
    parts = []
    for part in parts_of(_without_repeats(text), _PART_LENGTH):
        parts.append(folded(part))
        await turn.yield_if_over()
    text = "".join(parts)
    if text.isascii():
        return _plain_words(text)
    encoded_parts = [" "]
    for start in range(0, len(text), _PART_LENGTH):
        encoded_parts.append(codes.of(text[start : start + _PART_LENGTH]))
        await turn.yield_if_over()
    encoded = without_marks("".join(encoded_parts))
    await turn.yield_if_over()
    distinct: dict[str, None] = {}
    for words in _lots_of_words(encoded):
        distinct.update(dict.fromkeys(_each_once(words)))
        await turn.yield_if_over()
    return distinct


def _lots_of_words(encoded: str) -> Iterator[list[str]]:
    """Split an encoded text into the words of ``_cut_out``, not too many at a time."""
    chunks = encoded.split()
    start = size = 0
    for number, chunk in enumerate(chunks):
        size += len(chunk) + 1
        if size <= _PART_LENGTH * UNSPACED_LENGTH:
            continue
        yield _cut_out(" ".join(chunks[start:number]), with_last=True)
        yield from _parts_of_chunk(chunk)
        start, size = number + 1, 0
    yield _cut_out(" ".join(chunks[start:]), with_last=True)


def _parts_of_chunk(chunk: str) -> Iterator[list[str]]:
    *parts, rest = chunk.split(UNSPACED_SIGN)
    last, is_alone = "", True
    for start in range(0, len(parts), _PART_LENGTH):
        words: list[str] = []
        some = islice(parts, start, start + _PART_LENGTH)
        last, is_alone = _extend(words, some, last, is_alone=is_alone, with_last=True)
        yield words
    yield [word for word in (last, rest) if word]


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
        words = map(tuple, map(_encoded_words, folded(text).split(_BETWEEN)))
        # Replaced as in ``character_codes``.
        known = self._known if len(self._known) + len(pieces) <= self._limit else {}
        known.update(zip(pieces, words, strict=True))
        self._known = known


_pieces = _Pieces(limit=8192, longest=60)
