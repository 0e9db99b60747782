"""Files of products with random damage, as files become on their way."""

from random import Random

from tests.products.bulk.sent_records import sent_lines, sent_records

NDJSON, CSV = "application/x-ndjson", "text/csv"

_TEXTS = ("Lamp", 'a "b"', "two\nlines", "Tür, grün", "=1", "", "日本", "x" * 600, "a;b", " ")
_PRICES = ("1", "2.5", "0", "-1", "x", "1e3", "", "1,5")
_ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "windows-1252")
_BYTES = b"\",;\t\r\n\\{}[]:\0\xff\xc3\xe9a1 '"


class MutatedFile:
    """A file of products, damaged at random.

    Args:
        seed: two files of one seed are equal.

    Attributes:
        media_type: its media type, with the charset.
        text: its bytes.
        sent: the number of its records; its lines, where records cannot be told.
    """

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311 (repeatable)
        if self._random.random() < 0.4:
            self.media_type = NDJSON
            self.text = self._damaged(self._ndjson(), start=0, width=1)
            self.sent = sent_lines(self.text)
        else:
            self._make_csv()

    def _make_csv(self) -> None:
        encoding = self._random.choice(_ENCODINGS)
        separator = self._random.choice(",,;\t")
        end = self._random.choice(("\n", "\r\n"))
        header = separator.join(("name", "price", "description")) + end
        records = "".join(
            separator.join(self._cell(text, separator) for text in self._product()) + end
            for _ in range(self._count())
        )
        if encoding == "windows-1252":
            records = records.replace("日本", "Café")
        self.media_type = f"{CSV}; charset={'windows-1252' if encoding[0] == 'w' else 'utf-8'}"
        start, text = header.encode(encoding), (header + records).encode(encoding)
        width = 2 if encoding == "utf-16" else 1
        # The header stays as it is: a damaged one is refused, or names other columns.
        self.text = self._damaged(text, start=len(start), width=width)
        self.sent = sent_records(self.text, separator, encoding)

    def _count(self) -> int:
        return self._random.choice(
            (0, 1, 3, 10, 10, 40, 3000 if self._random.random() < 0.05 else 5)
        )

    def _product(self) -> tuple[str, str, str]:
        choice = self._random.choice
        return choice(_TEXTS), choice(_PRICES), choice(_TEXTS)

    def _ndjson(self) -> bytes:
        lines = []
        for _ in range(self._count()):
            name, price, description = self._product()
            name, description = (
                text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
                for text in (name, description)
            )
            lines.append(f'{{"name":"{name}","price":{price or 1},"description":"{description}"}}')
        return self._random.choice(("\n", "\r\n")).join([*lines, ""]).encode()

    def _cell(self, text: str, separator: str) -> str:
        if self._random.random() < 0.3 or not {*text}.isdisjoint({separator, '"', "\n"}):
            quoted = text.replace('"', '""')
            return f'"{quoted}"'
        return text

    def _damaged(self, text: bytes, *, start: int, width: int) -> bytes:
        """Insert, remove, replace or repeat characters after ``start``, or cut the end off."""
        random = self._random
        for _ in range(random.choice((0, 1, 1, 2, 5))):
            place = random.randrange(start, len(text) + 1, width) if len(text) > start else start
            more = random.choice(_BYTES)
            inserted = bytes((more,)) if width == 1 else bytes((more, 0))
            kind = random.randrange(5)
            if kind == 0:
                text = text[:place] + inserted + text[place:]
            elif kind == 1:
                text = text[:place] + text[place + width :]
            elif kind == 2:
                text = text[:place] + inserted + text[place + width :]
            elif kind == 3:
                again = text[place : place + width * random.randint(1, 30)]
                text = text[:place] + again + text[place:]
            else:
                text = text[: max(start, len(text) - width * random.randint(0, 40))]
        return text
