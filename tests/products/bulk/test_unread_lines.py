"""Lines that are not read are counted, in whatever pieces they arrive."""

import pytest

from catalog.errors import LinesInvalid
from catalog.products.bulk.formats.unread_lines import LineCounter, OverlongRecord, unread
from tests.products.bulk.reading import pieces

SIZES = (1, 2, 3, 7, 100)


def counted(text: str, size: int) -> tuple[int, int, int]:
    """Return the numbers of line breaks, of lines and of lines that are not blank."""
    counter = LineCounter()
    for piece in pieces(text.encode(), size):
        counter.count(piece.decode())
    return counter.breaks, counter.lines, counter.records


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0, 0)),
        ("Lamp", (0, 1, 1)),
        ("Lamp\n", (1, 1, 1)),
        ("Lamp\nDesk", (1, 2, 2)),
        ("\n\n", (2, 2, 0)),
        ("Lamp\n\n \t\r\n,;,\n,X\nDesk,1\r\n", (6, 6, 3)),
        ("  \n  ", (1, 2, 0)),
        ("X\nX\nX", (2, 3, 3)),
    ],
)
def test_blank_lines_and_rows_of_separators_are_no_records(
    text: str, expected: tuple[int, int, int], size: int
) -> None:
    assert counted(text, size) == expected


class TestOverlongRecord:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize(
        ("record", "lines"),
        [
            ("Lamp,1\n", 1),
            ('"Lamp\nOak",1\n', 2),
            ('"say ""hi""\n",1\n', 2),
            ('a"b"c\n', 1),
            ('"\n\n\n"\n', 4),
        ],
    )
    def test_record_ends_with_the_first_line_outside_of_quotes(
        self, record: str, lines: int, size: int
    ) -> None:
        overlong, rest = OverlongRecord(), "Desk,2\n"
        left: str | None = None
        for piece in pieces((record + rest).encode(), size):
            left = overlong.read(piece.decode()) if left is None else left + piece.decode()

        assert left == rest
        assert overlong.counter.breaks == lines

    def test_part_that_was_read_before_may_have_opened_a_quote(self) -> None:
        overlong = OverlongRecord()
        overlong.begin('Lamp,"Oak\n')

        assert overlong.read("Ash\n") is None
        assert overlong.read('",1\nDesk,2\n') == "Desk,2\n"
        assert overlong.counter.breaks == 3


class TestFault:
    def test_fault_of_one_line_names_its_line(self) -> None:
        counter = LineCounter()
        counter.count("Lamp")

        fault, records = unread(7, counter, LinesInvalid("It is wrong."))

        assert (fault.line, fault.last_line, records) == (7, None, 1)
        assert fault.message == "It is wrong."

    def test_fault_of_several_lines_names_the_first_and_the_last(self) -> None:
        counter = LineCounter()
        counter.count("Lamp\n\nDesk\n")

        fault, records = unread(7, counter, LinesInvalid("It is wrong."))

        assert (fault.line, fault.last_line, records) == (7, 9, 2)
        assert fault.message == "It is wrong. Nothing was read from line 7 to line 9."
