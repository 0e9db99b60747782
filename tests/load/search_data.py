"""Products whose words are as frequent as the words of a language, for measurements of searches.

Most words come from a vocabulary in which the n-th word is n times as rare as the first (Zipf's
law). On top, each of ``PLANTED`` occurs with a known frequency, together with others or never.
"""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from itertools import product as combinations

from catalog.products.models import NewProduct

CHUNK_ROWS = 2000
"""Products in one transaction."""

OWNERS = 20
"""Owners: the first has a quarter of the products, the last ``FEW`` of them, the others the
rest."""
FEW = 500

_FIRST = datetime(2024, 1, 1, tzinfo=UTC)
_MEDIAN_PRICE = 500

_SYLLABLES = tuple(map("".join, combinations("bdfklmnprstv", "aeiou")))
_VOCABULARY = tuple(map("".join, combinations(_SYLLABLES, _SYLLABLES, ("n", "r", "sta", "lin"))))
_WEIGHTS = tuple(accumulate(1 / rank for rank in range(1, len(_VOCABULARY) + 1)))
_NAME_WORDS, _WORDS = 3, 12

_SHARES = {
    "handmade": 0.5,
    "classic": 0.5,
    "walnut": 0.1,
    "brass": 0.01,
    "copper": 0.01,
    "jade": 0.001,
}
"""Words that occur by chance, independently of all others, with their shares of the products."""

_COUNTS = {"onyx": 1000, "opal": 1000, "zircon": 50, "topaz": 50, "garnet": 1}
"""Words of evenly distributed products, with the numbers of these in a million."""


def make_products(count: int, *, owner_ids: Sequence[int]) -> Iterator[list[NewProduct]]:
    """Yield products in chunks, oldest first; always the same ones."""
    chance = random.Random(7)  # noqa: S311 (it has to be reproducible)
    for first in range(0, count, CHUNK_ROWS):
        numbers = range(first, min(first + CHUNK_ROWS, count))
        # Drawing all words at once costs a fraction of drawing them one by one.
        drawn = chance.choices(_VOCABULARY, cum_weights=_WEIGHTS, k=_WORDS * len(numbers))
        words = iter(drawn)
        yield [
            _product(number, count, [next(words) for _ in range(_WORDS)], chance, owner_ids)
            for number in numbers
        ]


def _product(
    number: int, count: int, words: list[str], chance: random.Random, owner_ids: Sequence[int]
) -> NewProduct:
    price = round(chance.random() * 2 * _MEDIAN_PRICE, 2)
    words += [word for word, share in _SHARES.items() if chance.random() < share]
    words += [
        word
        for place, (word, often) in enumerate(_COUNTS.items())
        if _is_chosen(number, count, often, place)
    ]
    # Halves of the products that never meet, and those that lie where a list ends.
    words.append("indoor" if number % 2 else "outdoor")
    words.append("luxury" if price > _MEDIAN_PRICE else "thrifty")
    if number % 10 == 0:
        words.append("maple" if "walnut" not in words else "birch")
    if number % 100 == 0 and "brass" not in words:
        words.append("pewter")
    if number < count // 100:
        words.append("vintage")
    # With one in five of the products that have the first word, and with no other.
    words += [
        also
        for word, also in (("onyx", "amber"), ("zircon", "beryl"))
        if word in words and number // _every(count, _COUNTS[word]) % 5 == 0
    ]
    name, description = words[:_NAME_WORDS], words[_NAME_WORDS:]
    chance.shuffle(description)
    created_at = _FIRST + timedelta(seconds=number)
    owner_id = owner_ids[_owner(number, count, len(owner_ids))]
    return NewProduct(
        " ".join(name).capitalize(), " ".join(description), price, owner_id, created_at
    )


def _is_chosen(number: int, count: int, often: int, place: int) -> bool:
    """Return whether a product is one of ``often`` in a million; places tell words apart."""
    every = _every(count, often)
    return number % every == (place * 7 + 3) % every


def _every(count: int, often: int) -> int:
    return max(1, count // max(1, often * count // 1_000_000))


def _owner(number: int, count: int, owners: int) -> int:
    if number % max(1, count // FEW) == 1:
        return owners - 1
    return 0 if number % 4 == 0 else 1 + number % (owners - 2)
