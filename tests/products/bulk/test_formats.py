"""NDJSON and CSV: round trips, and lines checked as strictly as single requests."""

import csv
import gc
import json
import time
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from catalog.errors import LinesInvalid, MalformedRequest
from catalog.http.replies.problems import field_errors
from catalog.http.strict_json import parse_json
from catalog.products.bulk.formats import (
    CSV,
    FORMATS,
    NDJSON,
    Format,
    LineFault,
    Parsed,
    ParsedProduct,
    Reader,
    UnreadLines,
    UpsertLine,
)
from catalog.products.bulk.formats.csv import MAX_RECORD
from catalog.products.bulk.formats.csv_header import MAX_COLUMNS
from catalog.products.bulk.formats.formula_guard import guarded, unguarded
from catalog.products.bulk.formats.lines import MAX_LINE_BYTES, READ_ONLY
from catalog.products.models import MAX_PRICE
from catalog.products.queries import FIELDS
from catalog.products.schemas import ProductCreate
from tests.frozen_objects import frozen_objects
from tests.products.bulk.reading import pieces, read_with
from tests.watchdog import MAX_PIECE_SECONDS

DRAFT_FIELDS = ("name", "description", "price", "key")

# Most faults of readers and writers involve these characters.
AWKWARD = st.text("'=+-@＝＋－＠\t\r\n\",;\\ äx\u2028\x85\ufeff{}[]:,", max_size=12)  # noqa: RUF001 (full width)
TEXTS = (AWKWARD | st.text(max_size=40)).filter(lambda text: "\0" not in text)
DRAFTS = st.builds(
    ParsedProduct,
    TEXTS.filter(lambda text: bool(text.strip())),
    st.none() | TEXTS,
    st.floats(0, MAX_PRICE).map(lambda price: price + 0.0),
    st.none() | TEXTS.filter(bool),
)


VALUES = [
    *('"a"', '"\\u0022"', '"\\""', '"\\\\"', '" "', '"\\ud800"', '"\\u0000"', '{"a":"b"}', "[]"),
    *("1", "1.5", "-0.0", "1e400", "1e13", "null", "true", "NaN"),
]


def parsed(form: Format, text: bytes, *, size: int = 1 << 16) -> list[Parsed]:
    """Return the records of a text in a format."""
    return read_with(form.reader(), text, size=size)


def faults(form: Format, text: bytes, **options: Any) -> list[tuple[int, str, str | None]]:
    """Return the lines at fault with their codes and pointers."""
    return [
        (fault.line, fault.code, fault.pointer)
        for each in parsed(form, text, **options)
        if not isinstance(each, ParsedProduct | UpsertLine)
        for fault in ([each.fault] if isinstance(each, UnreadLines) else each)
    ]


def names(form: Format, text: bytes, **options: Any) -> list[str]:
    """Return the names of the products in a text."""
    return [each.name for each in parsed(form, text, **options) if isinstance(each, ParsedProduct)]


def written(form: Format, rows: Sequence[Sequence[Any]], fields: Sequence[str]) -> bytes:
    writer = form.writer(fields)
    return writer.head() + writer.write(rows)


@pytest.fixture(params=FORMATS.values(), ids=lambda form: form.name)
def form(request: pytest.FixtureRequest) -> Format:
    """Return each format in turn."""
    form: Format = request.param
    return form


class TestRoundTrip:
    @given(drafts=st.lists(DRAFTS, max_size=5), size=st.integers(1, 40))
    @pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
    def test_written_products_are_read_back_unchanged(
        self, form: Format, drafts: list[ParsedProduct], size: int
    ) -> None:
        text = written(form, drafts, DRAFT_FIELDS)

        assert parsed(form, text, size=size) == drafts

    @given(drafts=st.lists(DRAFTS, min_size=1, max_size=3))
    @pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
    def test_export_can_be_imported_into_another_catalog(
        self, form: Format, drafts: list[ParsedProduct]
    ) -> None:
        at = "2026-11-23T09:30:00.000000Z"
        rows = [
            (n, d.name, d.description, d.price, d.key, 2**63 - 1, 3, at, at)
            for n, d in enumerate(drafts)
        ]

        assert parsed(form, written(form, rows, FIELDS)) == drafts

    @given(text=TEXTS)
    def test_guarded_text_can_be_restored_and_is_no_formula(self, text: str) -> None:
        cell = guarded(text)

        assert unguarded(cell) == text
        assert cell[:1] not in set("=+-@\t\r\n＝＋－＠")  # noqa: RUF001 (full width)

    def test_several_writes_equal_one(self, form: Format) -> None:
        writer = form.writer(["name", "price"])

        text = writer.head() + b"".join(writer.write([(name, 1.0)]) for name in "ab")

        assert text + writer.write([]) == written(form, [("a", 1.0), ("b", 1.0)], ["name", "price"])


class TestNdjsonReader:
    @pytest.mark.parametrize(
        "text",
        ['{"name": "Lamp", "price": 9}', '{"price":9.0,"description":null,"name":"Lamp"} \t\r'],
    )
    def test_line_is_one_product(self, text: str) -> None:
        assert parsed(NDJSON, text.encode()) == [ParsedProduct("Lamp", None, 9.0)]

    def test_empty_lines_are_skipped_but_counted(self) -> None:
        text = b'\n\r\n  \n{"name":"a","price":1}\n\n{"name":1,"price":1}\n\n'

        assert names(NDJSON, text) == ["a"]
        assert faults(NDJSON, text) == [(6, "invalid", "/name")]

    @pytest.mark.parametrize(
        "line",
        [
            b'{"name": "a", "price": 1, "price": 1}',
            b'{"name": "a", "price": 1, "\\u0070rice": 1}',
            b'{"name": "\\u0022", "price": 1, "price": 2}',
            b'{"name": "\\u0022", "price": 1, "id": 1, "id": 2}',
            b'{"name": "a", "price": 1, "description": null, "description": null}',
            b'{"name": "a", "price": 1, "id": "\\u0022", "id": 5}',
            b'{"name": "a", "price": 1, "id": {"a": 1, "a": 2}}',
        ],
    )
    def test_duplicate_field_is_malformed(self, line: bytes) -> None:
        assert faults(NDJSON, line) == [(1, "malformed", None)]

    @given(
        members=st.lists(
            st.tuples(
                st.sampled_from(
                    ["name", "name", "price", "description", "key", "id", "version", "x"]
                ),
                st.sampled_from(VALUES) | st.text(max_size=3).map(json.dumps),
            ),
            max_size=6,
        )
    )
    def test_line_is_checked_as_strictly_as_a_single_request(
        self, members: list[tuple[str, str]]
    ) -> None:
        line = "{" + ",".join(f'"{name}":{value}' for name, value in members) + "}"

        assert parsed(NDJSON, line.encode()) == [by_schema(line.encode())]

    @pytest.mark.parametrize(
        "line",
        [b"\xff\xfe{}", b'{"name": "\xff"}', b"{} {}", b"[" * 40, b"NaN", b'"\xed\xa0\x80"'],
    )
    def test_invalid_json_is_malformed_and_the_next_line_is_read(self, line: bytes) -> None:
        text = line + b'\n{"name": "next", "price": 1}'

        assert faults(NDJSON, text) == [(1, "malformed", None)]
        assert names(NDJSON, text) == ["next"]

    def test_error_message_speaks_of_the_line(self) -> None:
        (found,) = parsed(NDJSON, b'{"name": }')

        assert found == [LineFault(1, "malformed", "The line is not valid JSON at column 10.")]

    @pytest.mark.parametrize("size", [1000, 1 << 16, 1 << 20])
    def test_too_long_line_is_one_fault(self, size: int) -> None:
        line = b'{"name":"x","price":1}'
        longest = line + b" " * (MAX_LINE_BYTES - len(line))
        text = b"\n".join([longest, longest + b" ", b"[" * 3 * MAX_LINE_BYTES, b"5", line])

        assert names(NDJSON, text, size=size) == ["x", "x"]
        assert faults(NDJSON, text, size=size) == [
            (2, "body-too-large", None),
            (3, "body-too-large", None),
            (4, "invalid", ""),
        ]


def by_schema(line: bytes) -> Parsed:
    """Parse a line as a single request's body, less the fields that an import ignores."""
    try:
        members = parse_json(line)
    except MalformedRequest as error:
        detail = error.detail.replace("The body", "The line").replace(" line 1,", "")
        return [LineFault(1, "malformed", detail)]
    members = {name: value for name, value in members.items() if name not in READ_ONLY}
    try:
        product = ProductCreate.model_validate(members)
    except ValidationError as error:
        return [LineFault(1, "invalid", each.message, each.name) for each in field_errors(error)]
    return ParsedProduct(product.name, product.description, product.price, product.key)


class TestCsvReader:
    def test_columns_may_have_any_order(self) -> None:
        text = b"price,version,name\r\n9.50,7,Lamp\r\n"

        assert parsed(CSV, text) == [ParsedProduct("Lamp", None, 9.5)]

    def test_byte_order_mark_and_bare_newlines_are_accepted(self) -> None:
        text = b"\xef\xbb\xbfname,price\n\nLamp,1\nDesk,2"

        for size in (1, 2, 100):
            assert names(CSV, text, size=size) == ["Lamp", "Desk"]

    def test_empty_cell_is_no_description(self) -> None:
        text = b"name,price,description\r\na,1,\r\nb,1,'\r\nc,1,''\r\nd,1,'til dawn\r\ne,1,'=1\r\n"

        assert [
            each.description for each in parsed(CSV, text) if isinstance(each, ParsedProduct)
        ] == [
            None,
            "",
            "'",
            "'til dawn",
            "=1",
        ]

    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_multiline_record_is_reported_by_its_first_line(self, size: int) -> None:
        text = b'name,price\r\n"a\r\nb",1\r\n"c\nd",x\r\n"e ""f""",1\r\n,2\r\n'

        assert names(CSV, text, size=size) == ["a\r\nb", 'e "f"']
        assert faults(CSV, text, size=size) == [(4, "invalid", "/price"), (7, "invalid", "/name")]

    @pytest.mark.parametrize(
        "price",
        [
            "1_000",
            "1 0",
            "nan",
            "inf",
            "0x1",
            "1,5",
            "+1",
            "01",
            "1.",
            ".5",
            "٣",
            "1e400",
            "-1",
            "true",
        ],
    )
    def test_price_that_is_no_json_number_in_range_is_invalid(self, price: str) -> None:
        text = f'name,price\r\na,"{price}"\r\n'.encode()

        assert faults(CSV, text) == [(2, "invalid", "/price")]

    def test_empty_price_is_missing(self) -> None:
        (found,) = parsed(CSV, b"name,price\r\na,\r\n")

        assert found == [LineFault(2, "invalid", "price is missing.", "/price")]

    @pytest.mark.parametrize(
        "line",
        [b"a", b"a,1,2", b'"a"b,1', b'"a\r,1', b"a\rb,1", b'"a\nb"c,1'],
    )
    @pytest.mark.parametrize("size", [1, 1000])
    def test_invalid_csv_is_malformed(self, line: bytes, size: int) -> None:
        found = faults(CSV, b"name,price\r\nfirst,1\r\n" + line + b"\r\n", size=size)

        assert found == [(3, "malformed", None)]

    def test_record_after_a_malformed_one_is_read(self) -> None:
        text = b'name,price\r\n"a"b,1\r\na,b,1\r\nnext,1\r\n'

        assert names(CSV, text) == ["next"]

    @pytest.mark.parametrize(
        ("header", "pointers"),
        [
            (b"", [None]),
            (b"\r\n\r\n", [None]),
            (b"name:price\r\n", ["/name:price", "/name", "/price"]),
            (b"name;,price\r\n", ["/name;", "/name"]),
            (b"Name,PRICE ,name,,size,price\r\n", ["/", "/size", "/name", "/price"]),
            (b"name,price,colour\r\na,1,red\r\n", ["/colour"]),
            (b"name,price,name\r\n", ["/name"]),
            (b"name\r\na\r\n", ["/price"]),
            ("name,price\r\n".encode("utf-16le"), [None]),
            (b"sep=.\r\nname.price\r\n", [None]),
            (b'"name,price', [None]),
            (b"n" * 2 * MAX_LINE_BYTES, [None]),
            (b"n" * 9000 + b",price\r\n", [None]),
            (b"name," * (MAX_COLUMNS + 1) + b"\r\n", [None]),
        ],
    )
    def test_text_without_a_valid_header_is_refused(
        self, header: bytes, pointers: list[str | None]
    ) -> None:
        with pytest.raises(LinesInvalid) as refused:
            parsed(CSV, header)

        errors: Any = refused.value.members["errors"]
        assert [error.get("pointer") for error in errors] == pointers

    @pytest.mark.parametrize("size", [1000, 1 << 16, 1 << 20])
    def test_too_long_record_is_one_fault(self, size: int) -> None:
        filling = b"x\r\n" * MAX_RECORD
        text = b'name,price\r\nfirst,1\r\n"%b""%b",1\r\nnext,1\r\n' % (filling, filling)

        assert names(CSV, text, size=size) == ["first", "next"]
        assert faults(CSV, text, size=size) == [(3, "body-too-large", None)]
        after = text + b"last,x\r\n"
        assert faults(CSV, after, size=size)[1] == (5 + 2 * MAX_RECORD, "invalid", "/price")

    def test_unclosed_cell_is_one_fault(self) -> None:
        text = b'name,price\r\nfirst,1\r\n"never' + b"x\r\n" * MAX_RECORD

        assert names(CSV, text) == ["first"]
        assert faults(CSV, text) == [(3, "body-too-large", None)]


K = 1024
HEADER = b"name,price\r\n"

HOSTILE = {
    "columns": (CSV, b"a," * 120_000 + b"\r\n"),
    "same columns": (CSV, b"name," * 120_000 + b"\r\n"),
    "cell of newlines": (CSV, HEADER + b'"' + b"\n" * 2560 * K),
    "longest cells of newlines": (CSV, HEADER + (b'"' + b"\n" * 255 * K + b'",1\n') * 10),
    "quotes": (CSV, HEADER + b'"' * 2560 * K),
    "quoted newlines": (CSV, HEADER + b'"\n"' * 80 * K),
    "returns": (CSV, HEADER + b"\r" * 2560 * K),
    "one line": (CSV, HEADER + b"x" * 2560 * K),
    "empty records": (CSV, HEADER + b"\n" * 2560 * K),
    "damaged cells": (CSV, HEADER + b"a,1\n" * 32 * K + (b",\xff" * 127 * K + b"\n") * 10),
    "separators": (CSV, HEADER + b"," * 2560 * K),
    "rows of separators first": (CSV, b";\n" * 1280 * K),
    "rows of separators behind theirs": (CSV, b"sep=,\n" + b",\n" * 1280 * K),
    "rows of separators": (CSV, HEADER + b",\n" * 1280 * K),
    "lines in an open quote": (CSV, HEADER + b'"' + b"a,1\n" * 640 * K),
    "blank lines in an open quote": (CSV, HEADER + b'"' + b" ;,\n" * 640 * K),
    "digits": (CSV, HEADER + (b"a,1." + b"1" * 255 * K + b"\n") * 10),
    "NULs": (CSV, HEADER + b"\0" * 2560 * K),
    "empty lines": (NDJSON, b"\n" * 2560 * K),
    "blank lines": (NDJSON, b" \n" * 1280 * K),
    "one line of JSON": (NDJSON, b"[" * 2560 * K),
    "unknown fields": (NDJSON, b"{%b}\n" % b",".join(b'"%x":1' % n for n in range(24_000)) * 10),
    "nested lists": (NDJSON, (b"[" + b"[]," * 80_000 + b"1]\n") * 10),
    "shorter nested lists": (NDJSON, (b"[" + b"[]," * 2000 + b"1]\n") * 80),
}
"""Texts ten times as long as a line may be, in shapes that are costly to parse."""


@pytest.fixture(scope="module")
def frozen_garbage() -> Iterator[None]:
    """Keep garbage collections of the test session's objects out of the measured steps."""
    gc.collect()
    frozen_objects.freeze()
    yield
    frozen_objects.thaw()


@pytest.mark.usefixtures("frozen_garbage")
class TestHostileText:
    @pytest.mark.parametrize("size", [K, 64 * K])
    @pytest.mark.parametrize("shape", HOSTILE)
    def test_step_of_hostile_text_is_short(self, shape: str, size: int) -> None:
        form, text = HOSTILE[shape]
        reader = form.reader()

        longest = longest_step(reader, [*pieces(text, size), b""])

        assert longest < MAX_PIECE_SECONDS

    def test_long_step_is_detected(self) -> None:
        """Negative control: a piece that is not cut is one step."""
        # A multiple of the limit, even on a fast machine.
        assert longest_step(NDJSON.reader(), [b"\n" * 24 * K * K, b""]) > MAX_PIECE_SECONDS

    @pytest.mark.parametrize("text", [b"[", b'"', b"x"])
    def test_single_bytes_are_not_read_again(self, form: Format, text: bytes) -> None:
        reader = form.reader()
        # A header may not be as long as other lines.
        list(reader.read(HEADER if form is CSV else b""))
        begin = time.thread_time()

        for _ in range(MAX_LINE_BYTES):
            assert list(reader.read(text)) == []

        # A byte takes about 1 µs; reading all bytes before it again would make that about 10 µs.
        assert time.thread_time() - begin < 2

    @given(
        text=st.lists(
            st.sampled_from([b'"', b'""', b",", b"\n", b"\r\n", b"\r", b"a", b"x,1\n", b"\xc3\xa9"])
        ).map(b"".join),
        size=st.integers(1, 20),
    )
    def test_records_equal_those_of_the_csv_module(self, text: bytes, size: int) -> None:
        lines = [*StringIO(text.decode())]
        reader = csv.reader(lines, strict=True)
        expected: list[int] = []
        while reader.line_num < len(lines):
            line = 2 + reader.line_num
            try:
                cells: list[str] | None = next(reader)
            except csv.Error:
                cells = None
            if cells is None or any(cells):
                expected.append(line)

        found = faults(CSV, HEADER + text, size=size)
        count = len(expected) - len(names(CSV, HEADER + text, size=size))

        assert {line for line, _, _ in found} <= set(expected)
        assert len({line for line, _, _ in found}) == count


def longest_step(reader: Reader, text: Sequence[bytes]) -> float:
    """Return the CPU seconds of the longest step until the text ends or is refused."""
    longest = 0.0
    for number, piece in enumerate(text, 1):
        steps = reader.read(piece, is_last=number == len(text))
        more = True
        while more:
            begin = time.thread_time()
            try:
                more = next(steps, END) is not END
            except LinesInvalid:
                return longest
            finally:
                longest = max(longest, time.thread_time() - begin)
    return longest


END = object()


class TestCsvWriter:
    def test_output_follows_rfc_4180(self) -> None:
        rows = [(7, 'a "b", c', None, 24.0), (8, "two\nlines", "", 1e-7)]

        assert written(CSV, rows, ["id", "name", "description", "price"]) == (
            b'id,name,description,price\r\n7,"a ""b"", c",,24.0\r\n8,"two\nlines",\',1e-07\r\n'
        )

    @pytest.mark.parametrize("name", ["=1+2", "+1", "-1", "@x", "\tx", "\rx", "\nx", "＝1", "''=1"])  # noqa: RUF001 (full width)
    def test_cell_that_begins_like_a_formula_is_guarded(self, name: str) -> None:
        (_, (cell,)) = csv.reader(StringIO(written(CSV, [[name]], ["name"]).decode(), newline=""))

        assert cell == "'" + name


class TestNdjsonWriter:
    def test_line_is_one_object(self) -> None:
        rows = [(7, '},{"id":', None), (8, '"},{"', "},{")]
        fields = ["id", "name", "description"]

        lines = written(NDJSON, rows, fields).split(b"\n")

        assert lines.pop() == b""
        assert [orjson.loads(line) for line in lines] == [
            dict(zip(fields, row, strict=True)) for row in rows
        ]
