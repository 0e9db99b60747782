"""Plain lines are parsed together, with the results that each has alone."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from catalog.products.bulk.formats import (
    CSV,
    NDJSON,
    Format,
    Parsed,
    ParsedProduct,
    Reader,
    ReaderOptions,
)
from catalog.products.bulk.formats.lines import LINES_AT_ONCE

NDJSON_LINES = (
    '{"name":"Lamp","price":1}',
    '{"name":"Tür \\"2\\"","price":1.5,"description":"two\\nlines"}',
    '{"price":0,"description":null,"name":"日本 😀","key":"a-1"}',
    '{"id":7,"name":"x","description":"y","price":-0.0,"key":null,"user_id":1,"version":2,'
    '"created_at":"2026-11-23T09:30:00.000000Z","updated_at":"2026-11-23T09:30:00.000000Z"}',
    '{"name":"},{","price":3}',
)
NDJSON_DAMAGE = (
    *('"', "{", "}", "},{", "[", "]", ",", ":", "\\", " ", "\n", "\r", "\0", "\\u0022", "\\u0000"),
    *('"price":2,', '"name":', '"x":1,', '"id":"\\u0022",', "1e13", "true", "null", "é", '""'),
)
CSV_LINES = (
    "Lamp,1,,\r\n",
    '"Tür ""2""",1.5,"two\nlines",a\n',
    "日本 😀,0,x,b-1\n",
    "'=1+1,-0.0,'@,\n",
    '"a,b",1e3,y,c\n',
)
CSV_DAMAGE = (
    *('"', '""', ",", ",,,,", "'", "\n", "\r", "\0", " ", "\t", "1e13", "-1", "nan", "1_0", "x"),
    *("\n\n", ",,,\n", '"\n', "é", "'=", "1\n2"),
)
KINDS = {
    "ndjson": (NDJSON, "", NDJSON_LINES, NDJSON_DAMAGE, "\n", "\n{"),
    "csv": (CSV, "name,price,description,key\n", CSV_LINES, CSV_DAMAGE, "", "\n1,2,3,4,5"),
}


def parsed(reader: Reader, head: str, text: str) -> list[tuple[int, int, Parsed]]:
    """Return the records of a text with their first and last lines."""
    list(reader.read(head.encode()))
    told = []
    for found in reader.read(text.encode("utf-8", "surrogatepass"), is_last=True):
        record = found() if callable(found) else found
        if record is not None:
            told.append((reader.first_line, reader.line, record))
    return told


def damaged(lines: Sequence[str], damage: Sequence[str], random: Random) -> str:
    """Join lines, with a few random changes."""
    text = "".join(lines)
    for _ in range(random.choice((0, 0, 1, 1, 2, 3))):
        at = random.randrange(len(text) + 1)
        text = text[:at] + random.choice(damage) + text[at + random.choice((0, 0, 1, 5)) :]
    return text


@pytest.mark.parametrize("kind", KINDS)
class TestPlainLines:
    @given(seed=st.integers(0, 2**63), count=st.integers(1, 6))
    @example(seed=0, count=LINES_AT_ONCE + 50)
    def test_lines_are_parsed_together_as_beside_a_faulty_one(
        self, kind: str, seed: int, count: int
    ) -> None:
        form, head, lines, damage, end, fault = KINDS[kind]
        random = Random(seed)  # noqa: S311 (repeatable)
        some = [random.choice(lines) + end for _ in range(count)]
        text = damaged(some, damage, random).removesuffix("\n")

        together = parsed(form.reader(), head, text)
        # A faulty line, for which all lines of its step are parsed one by one.
        one_by_one = parsed(form.reader(), head, text + fault)[: len(together)]

        # With a fault of their own they have been parsed one by one in the first place.
        if all(type(record) is ParsedProduct for *_, record in together):
            assert together == one_by_one

    def test_lines_are_numbered_across_steps(self, kind: str) -> None:
        form, head, lines, _, end, _ = KINDS[kind]
        text = "".join(lines[number % 5] + end for number in range(3 * LINES_AT_ONCE))

        found = parsed(form.reader(), head, text)

        assert len(found) == 3 * LINES_AT_ONCE
        assert all(type(record) is ParsedProduct for *_, record in found)
        expected = 1 + head.count("\n")
        for first_line, last_line, record in found:
            assert first_line == expected
            assert isinstance(record, ParsedProduct)
            expected = last_line + 1
        assert expected - 1 == head.count("\n") + text.count("\n")


def test_line_that_ends_in_the_next_one_is_malformed() -> None:
    text = '{"name":"a","price":1,"key":"}\n{","description":"b"}'

    assert all(type(record) is list for *_, record in parsed(NDJSON.reader(), "", text))


@pytest.mark.parametrize("options", [ReaderOptions(guard=False), ReaderOptions(upsert=True)])
@pytest.mark.parametrize("form", [NDJSON, CSV], ids=lambda form: form.name)
def test_other_options_are_kept(form: Format, options: ReaderOptions) -> None:
    kind = KINDS[form.name]
    text = "".join(line + kind[4] for line in kind[2])

    together = parsed(form.reader(options), kind[1], text.removesuffix("\n"))
    one_by_one = parsed(form.reader(options), kind[1], text.removesuffix("\n") + kind[5])

    assert together == one_by_one[:-1]


@pytest.mark.parametrize("line", ['[{"name":"Lamp","price":1}]', '["{}"]', '"{}"'])
def test_line_that_holds_an_object_inside_is_refused(line: str) -> None:
    ((_, _, faults),) = parsed(NDJSON.reader(), "", line)

    assert isinstance(faults, list)
    assert faults[0].message == "The line must be a JSON object."


@pytest.mark.parametrize("number", ["0" * 19 + "7", "9" * 20, "1" * 5000])
def test_id_of_more_digits_than_any_is_refused(number: str) -> None:
    reader = CSV.reader(ReaderOptions(upsert=True))

    ((_, _, faults),) = parsed(reader, "id,price\n", f"{number},1\n")

    assert isinstance(faults, list)
    assert [(fault.pointer, fault.message) for fault in faults] == [
        ("/id", "id must be a whole number.")
    ]
