"""CSV as spreadsheets and programs write it: separators, headers, encodings, and open quotes."""

import codecs
from typing import Any

import pytest

from catalog.errors import LinesInvalid
from catalog.products.bulk.formats import CSV, Parsed, ParsedProduct, ReaderOptions, UnreadLines
from catalog.products.bulk.formats.csv import MAX_RECORD
from catalog.products.bulk.formats.encodings import CHARSETS, CHECKED_BYTES
from tests.products.bulk.reading import read_with
from tests.support import Caller, problem_of

LAMP, RUG = ParsedProduct("Lamp", None, 9.5), ParsedProduct("Rug", None, 1.0)

EXCEL = b'\xef\xbb\xbfname;price;description\r\nSchraube M6;0,19;"Stahl; verzinkt"\r\n'
UNBALANCED = b"""name,price,description
Lamp,10,ok
"Broken quote,11,a line with a quote that never ends
Chair,12,valid
Table,13,valid
"Sofa, grey",14,valid and quoted
Shelf,15,valid
"""


def read(text: bytes, charset: str = "utf-8", *, size: int = 1 << 16) -> list[Parsed]:
    """Return the records of a text in a charset."""
    return read_with(CSV.reader(ReaderOptions(CHARSETS[charset])), text, size=size)


class TestSeparator:
    @pytest.mark.parametrize("size", [1, 1000])
    def test_german_excel_file_is_read(self, size: int) -> None:
        assert read(EXCEL, size=size) == [ParsedProduct("Schraube M6", "Stahl; verzinkt", 0.19)]

    @pytest.mark.parametrize("mark", [",", ";", "\t"])
    def test_separator_is_found_from_the_header(self, mark: str) -> None:
        text = "\n".join(mark.join(cells) for cells in (("price", "name"), ("9.5", "Lamp")))

        assert read(text.encode()) == [LAMP]

    @pytest.mark.parametrize("first", ["sep=;", "SEP=;\r", '"sep=;"', "\r\n;;\nsep=;"])
    def test_declared_separator_is_obeyed_and_its_line_counted(self, first: str) -> None:
        found = read(f"{first}\nname;price\nLamp;9,5\n;x\n".encode())

        assert found[0] == LAMP
        assert isinstance(found[1], list)
        assert found[1][0].line == 4 + first.count("\n")

    def test_declared_separator_may_be_a_bar(self) -> None:
        assert read(b"sep=|\nname|price\nLamp|9,5\n") == [LAMP]

    @pytest.mark.parametrize("price", ["9,5", "9.5", " 9,5 ", "0,95e1", "\xa09,5"])
    def test_decimal_comma_is_read_where_the_separator_is_none(self, price: str) -> None:
        assert read(f"name;price\nLamp;{price}\n".encode()) == [LAMP]

    @pytest.mark.parametrize("text", ['name,price\na,"9,5"\n', "name;price\na;1.234,5\n"])
    def test_ambiguous_price_is_invalid(self, text: str) -> None:
        (found,) = read(text.encode())

        assert isinstance(found, list)
        assert found[0].pointer == "/price"


class TestHeader:
    @pytest.mark.parametrize(
        "text",
        [
            b"Name, Price\r\nLamp,9.5\r\n",
            b"\n,,\r\n NAME\t,price ,,\nLamp,9.5,,\n,,,,\n\n",
            b"name;price;;\nLamp;9.5\n;;;\n",
            b"name,price\nLamp,9.5,,,\n",
            b"name;price" + b";" * 200 + b"\nLamp;9,5\n",
            b",name,price\n0,Lamp,9.5\n",
            b"Unnamed: 0,name,price\n0,Lamp,9.5\n",
        ],
    )
    def test_case_blanks_and_empty_columns_do_not_matter(self, text: bytes) -> None:
        assert read(text) == [LAMP]

    def test_cell_beyond_the_header_is_malformed(self) -> None:
        (found,) = read(b"name,price\nLamp,9.5,oak,\n")

        assert isinstance(found, list)
        assert found[0].message == "The line has 3 cells, and the header 2."

    def test_each_faulty_column_is_named(self) -> None:
        with pytest.raises(LinesInvalid) as refused:
            read(b"name,Title,,Name,colour\n")

        errors = refused.value.members["errors"]
        assert isinstance(errors, list)
        assert [(error["pointer"], error["message"]) for error in errors] == [
            ("/Title", "Title is not a known column."),
            ("/", "Column 3 has no name."),
            ("/colour", "colour is not a known column."),
            ("/name", "name is there more than once."),
            ("/price", "price is missing."),
        ]


class TestEncoding:
    @pytest.mark.parametrize("size", [1, 3, 1000])
    @pytest.mark.parametrize(
        "mark",
        [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE],
    )
    @pytest.mark.parametrize("charset", ["utf-8", "windows-1252"])
    def test_byte_order_mark_wins_over_the_charset(
        self, mark: bytes, charset: str, size: int
    ) -> None:
        codec = {4: "utf-32-le", 3: "utf-8"}.get(len(mark)) or (
            "utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be"
        )

        text = mark + 'name,price\nTür 日本 😀,1\n"a\nb",2'.encode(codec)

        assert [each[0] for each in read(text, charset, size=size)] == ["Tür 日本 😀", "a\nb"]

    @pytest.mark.parametrize(
        ("charset", "name"),
        [
            ("windows-1252", "Café “5 €”"),
            ("iso-8859-1", "Café"),
            ("iso-8859-15", "5 €"),
            ("windows-1251", "Лампа"),
            ("shift_jis", "ランプ"),
            ("gb18030", "灯 😀"),
            ("utf-16le", "Tür"),
            ("us-ascii", "Lamp"),
        ],
    )
    def test_declared_charset_is_decoded(self, charset: str, name: str) -> None:
        text = f"name,price\n{name},1\n".encode(CHARSETS[charset])

        assert read(text, charset, size=5) == [ParsedProduct(name, None, 1.0)]

    def test_every_charset_counts_its_lines_after_an_invalid_byte(self) -> None:
        for charset, codec in CHARSETS.items():
            head = "name,price\n" + "Lamp,1\n" * CHECKED_BYTES
            invalid = b"\x00\xdc" if "16-le" in codec else b"\xdc\x00" if "16" in codec else b"\xff"
            text = head.encode(codec) + invalid + "a,1\nb,1\n".encode(codec)
            try:
                text.decode(codec)
            except UnicodeDecodeError:
                last = read(text, charset)[-1]
                assert isinstance(last, UnreadLines)
                assert (last.fault.line, last.records) == (CHECKED_BYTES + 2, 2)

    @pytest.mark.parametrize("size", [1, 1 << 16])
    def test_text_in_another_encoding_is_refused_as_a_whole(self, size: int) -> None:
        with pytest.raises(LinesInvalid) as refused:
            read(b"name,price\r\nTea,1\r\nCaf\xe9,1\r\n", size=size)

        errors: Any = refused.value.members["errors"]
        (error,) = errors
        assert (error["line"], error["code"]) == (3, "malformed")
        assert "charset=windows-1252" in error["message"]

    @pytest.mark.parametrize(
        "damage", [b"\xe9", b'"open quote\n\xe9', b'"' + b"x" * MAX_RECORD + b"\n\xe9"]
    )
    def test_invalid_byte_later_on_ends_the_import_there(self, damage: bytes) -> None:
        count = CHECKED_BYTES // 4
        before = b"name,price\n" + b"n,1\n" * count
        text = before + damage + b",1\n\na,2\nb,3"

        *created, last = read(text)

        assert len(created) == count
        assert isinstance(last, UnreadLines)
        lines = damage.count(b"\n") + 1
        assert last.records == lines + 2
        assert (last.fault.line, last.fault.last_line) == (count + 2, count + 4 + lines)
        assert last.fault.message.endswith(
            f"Nothing was read from line {count + 2} to line {count + 4 + lines}."
        )

    def test_truncated_character_at_the_end_is_reported(self) -> None:
        text = b"name,price\n" + b"n,1\n" * CHECKED_BYTES + "日".encode()[:2]

        last = read(text)[-1]

        assert isinstance(last, UnreadLines)
        assert last.records == 1


class TestOpenQuote:
    @pytest.mark.parametrize("size", [1, 1000])
    def test_hidden_lines_are_counted_and_named(self, size: int) -> None:
        lamp, hidden, shelf = read(UNBALANCED, size=size)

        assert isinstance(hidden, UnreadLines)
        assert (hidden.fault.line, hidden.fault.last_line, hidden.records) == (3, 6, 4)
        assert (lamp[0], shelf[0]) == ("Lamp", "Shelf")

    def test_quote_that_is_never_closed_hides_all_lines(self) -> None:
        (_, hidden) = read(b'name,price\nLamp,1\n"Rug,2\n' + b"Desk,3\n\n" * 19_500)

        assert isinstance(hidden, UnreadLines)
        assert (hidden.fault.line, hidden.fault.last_line, hidden.records) == (3, 39_003, 19_501)

    @pytest.mark.parametrize(
        "record",
        ['"Rug,1\nDesk,2\n",x,3', 'Rug,"1\nDesk,2"', '"Rug,1\n' + "Desk,2\n" * 200 + '",3'],
    )
    def test_invalid_record_that_looks_like_several_counts_its_lines(self, record: str) -> None:
        (found,) = read(f"name,price\n{record}\n".encode())

        assert isinstance(found, UnreadLines)
        assert found.records == len([line for line in record.split("\n") if line])

    def test_invalid_record_with_a_line_break_in_its_name_is_one(self) -> None:
        (found,) = read(b'name,price\n"Lamp\noak",-1\n')

        assert isinstance(found, list)
        assert [fault.pointer for fault in found] == ["/price"]


class TestImport:
    """The same over HTTP."""

    async def test_hidden_lines_are_in_the_report(self, ada: Caller) -> None:
        headers = {"Content-Type": "text/csv"}
        answer = await ada.post("/api/products", data=UNBALANCED, headers=headers)

        assert answer.status_code == 200
        assert (answer.json["created"], answer.json["failed"]) == (2, 4)
        assert answer.json["errors"] == [
            {
                "line": 3,
                "code": "malformed",
                "message": "The line is not valid CSV (RFC 4180). "
                "Nothing was read from line 3 to line 6.",
                "last_line": 6,
            }
        ]

    async def test_hidden_lines_are_reported_after_a_thousand_errors(self, ada: Caller) -> None:
        text = b"name,price\n" + b"a,x\n" * 1200 + b'"open,1\nb,2\n'

        answer = await ada.post("/api/products", data=text, headers={"Content-Type": "text/csv"})

        assert answer.json["failed"] == 1202
        assert len(answer.json["errors"]) == 1001
        assert answer.json["errors"][-1]["last_line"] == 1203

    async def test_charset_of_the_media_type_is_used(self, ada: Caller) -> None:
        text = b"name;price\r\nCaf\xe9;1,5\r\n"

        refused = await ada.post("/api/products", data=text, headers={"Content-Type": "text/csv"})
        created = await ada.post(
            "/api/products", data=text, headers={"Content-Type": "text/csv; charset=Windows-1252"}
        )

        assert problem_of(refused) == (422, "lines-invalid")
        assert (created.json["created"], created.json["failed"]) == (1, 0)
        page = (await ada.get("/api/products/my")).json["products"]
        assert [(product["name"], product["price"]) for product in page] == [("Café", 1.5)]

    @pytest.mark.parametrize(
        "media_type", ["text/csv; charset=utf-7", "application/x-ndjson; charset=iso-8859-1"]
    )
    async def test_unknown_charset_is_refused(self, ada: Caller, media_type: str) -> None:
        answer = await ada.post(
            "/api/products", data=b"name,price\n", headers={"Content-Type": media_type}
        )

        assert problem_of(answer) == (415, "unsupported-media-type")
        assert "utf-8" in answer.json["detail"]

    @pytest.mark.parametrize("charset", ["", "; charset=utf8", "; charset=us-ascii"])
    async def test_byte_order_mark_before_ndjson_is_skipped(
        self, ada: Caller, charset: str
    ) -> None:
        answer = await ada.post(
            "/api/products",
            data=b'\xef\xbb\xbf{"name":"Lamp","price":1}\n',
            headers={"Content-Type": f"application/x-ndjson{charset}"},
        )

        assert (answer.json["created"], answer.json["failed"]) == (1, 0)

    async def test_wrong_encoding_after_the_first_chunks_keeps_them(self, ada: Caller) -> None:
        text = b"name,price\n" + b"n,1\n" * CHECKED_BYTES + b"\xe9,1\nb,2\n"

        answer = await ada.post("/api/products", data=text, headers={"Content-Type": "text/csv"})

        assert (answer.json["created"], answer.json["failed"]) == (CHECKED_BYTES, 2)

    async def test_atomic_import_with_hidden_lines_creates_nothing(self, ada: Caller) -> None:
        answer = await ada.post(
            "/api/products?atomic=true", data=UNBALANCED, headers={"Content-Type": "text/csv"}
        )

        assert problem_of(answer) == (422, "lines-invalid")
        assert (answer.json["created"], answer.json["failed"]) == (0, 4)
        assert (await ada.get("/api/products/my")).json["products"] == []

    async def test_apostrophe_is_text_without_the_guard(self, ada: Caller) -> None:
        await ada.post(
            "/api/products?guard=false",
            data=b"name,price\n'=1,1\n",
            headers={"Content-Type": "text/csv"},
        )

        assert (await ada.get("/api/products/my")).json["products"][0]["name"] == "'=1"
