"""Seed data: generated products for trials and benchmarks.

The same seed yields the same products on every engine, times included.
"""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from itertools import product as combinations
from math import exp
from statistics import NormalDist

from catalog.products.models import NewProduct

CHUNK_ROWS = 2000
"""Products in one transaction."""

FIRST_OFFER = datetime(2024, 1, 1, tzinfo=UTC)
OFFERED_FOR = timedelta(days=730)
"""Span of the creation times of one run, evenly distributed, in the order of the ids."""

_COLOURS = (
    *("Amber", "Black", "Cobalt", "Cream", "Crimson", "Ecru", "Forest green", "Indigo", "Ivory"),
    *("Mauve", "Mint", "Ochre", "Rosé", "Sage", "Slate", "Teal", "Vermilion", "White"),
)
_MATERIALS = (
    *("ash", "bamboo", "brass", "cedar", "ceramic", "copper", "cork", "felt", "glass", "leather"),
    *("linen", "marble", "oak", "papier-mâché", "steel", "walnut", "wool"),
)
_THINGS = (
    *("armchair", "bench", "bookend", "bowl", "café table", "candlestick", "carafe", "clock"),
    *(
        "crêpe pan",
        "cushion",
        "desk",
        "door handle",
        "étagère",
        "jug",
        "lamp",
        "mirror",
        "notebook",
    ),
    *("pencil case", "plant pot", "rug", "shelf", "stool", "teapot", "tray", "umbrella", "vase"),
)
_ELSEWHERE = (
    *map(
        "".join,
        combinations(
            ("青い", "白い", "小さな", "手作りの"), ("花瓶", "湯呑み", "竹籠", "和紙ランプ")
        ),
    ),
    *map("".join, combinations(("红色", "复古", "手工"), ("茶壶", "书桌", "丝绸围巾", "木椅"))),
    *map(" ".join, combinations(("작은", "따뜻한"), ("도자기 접시", "나무 의자", "조명"))),
    *map(" ".join, combinations(("Schöne", "Große"), ("Küchenuhr", "Gießkanne", "Bücherstütze"))),
    *map(" ".join, combinations(("Cafetière", "Théière"), ("émaillée", "à l'ancienne"))),
    *map(" ".join, combinations(("Lámpara", "Cántaro"), ("de otoño", "de niño", "pequeño"))),
    *map(" ".join, combinations(("Синяя", "Деревянная"), ("ваза", "полка", "шкатулка"))),
    *map(" ".join, combinations(("مصباح", "كرسي"), ("خشبي", "صغير"))),
)
# About one product in seven has a name from ``_ELSEWHERE``.
_NAMES = (*map(" ".join, combinations(_COLOURS, _MATERIALS, _THINGS)), *_ELSEWHERE * 25)
_SUFFIXES = (
    *[""] * 60,
    *(f" No. {number}" for number in range(1, 21)),
    *(f", {size} cm" for size in range(10, 100, 10)),
    *(
        ", set of 2",
        ", set of 4",
        ", refurbished",
        " (2nd choice)",
        ", ½ price",
        " “Zoë”",
        " & lid",
    ),
    *(" 🪴", " 🎁", " 🔥🔥", " 👩‍🎨"),
)
_SENTENCES = (
    *(f"Made of {material} that ages well." for material in _MATERIALS),
    *(f"Goes with {material} and with {other}." for material, other in pairwise(_MATERIALS)),
    *(f"Arrives within {days} days." for days in range(2, 15)),
    *(f"Weighs {grams} g; 100% recyclable." for grams in range(250, 5000, 250)),
    "Every piece is different, and so is yours.",
    "Do not put it into the dishwasher!",
    "It was my grandmother's: used, loved, mended once.",
    "Ships flat; the screws are in the bag with the note <read me first>.",
    "Ein Stück fürs Leben, geölt und von Hand geschliffen.",
    "Fabriqué à la main près de Besançon, où l'hiver est long.",
    "Hecho a mano por una pequeña familia de Oaxaca.",
    "職人が一つ一つ手作りしています。",
    "适合送礼,也适合自己用。",
    "손으로 빚어 가마에서 구웠습니다.",
    "Made with ❤ and too much coffee ☕.",
)
_SENTENCE_COUNTS = (*[None] * 15, *[0] * 3, *[1] * 30, *[2] * 32, *[3] * 20)


def make_samples(count: int, *, owner_ids: Sequence[int], seed: int) -> Iterator[list[NewProduct]]:
    """Yield products in chunks, oldest first; few owners have many products, and many have few."""
    chance = random.Random(seed)  # noqa: S311 (it has to be reproducible)
    all_prices = _prices()
    pace = OFFERED_FOR / timedelta(microseconds=1) / max(count, 1)
    for first in range(0, count, CHUNK_ROWS):
        # Drawing all values of a kind at once costs a fraction of drawing them one by one.
        rows = min(CHUNK_ROWS, count - first)
        names = chance.choices(_NAMES, k=rows)
        suffixes = chance.choices(_SUFFIXES, k=rows)
        prices = chance.choices(all_prices, k=rows)
        lengths = chance.choices(_SENTENCE_COUNTS, k=rows)
        sentences = iter(chance.choices(_SENTENCES, k=3 * rows))
        samples = []
        for row, (name, suffix, price, length) in enumerate(
            zip(names, suffixes, prices, lengths, strict=True), first
        ):
            description = None
            if length is not None:
                description = " ".join([next(sentences) for _ in range(length)])
            owner_id = owner_ids[int(len(owner_ids) * chance.random() ** 2)]
            age = timedelta(0, 0, int((row + chance.random()) * pace))
            samples.append(
                NewProduct(name + suffix, description, price, owner_id, FIRST_OFFER + age)
            )
        yield samples


def _prices() -> list[float]:
    """Return 10,000 prices, log-normal around 25, rounded to cents."""
    logarithm = NormalDist(3.2, 1.1)
    return [round(exp(logarithm.inv_cdf((rank + 0.5) / 10_000)), 2) for rank in range(10_000)]
