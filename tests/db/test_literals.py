"""SQL literals: rows of many values formatted together, as each value is formatted alone."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.db.literals import literal, row_literals

TEXTS = st.text() | st.text("\\'\"\0\n\r\x1a%_(),;é😀", max_size=8)
VALUES = st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
COLUMNS = st.one_of(
    *map(st.lists, (TEXTS, st.none() | TEXTS, st.integers(), st.floats(0, 1e12), st.none())),
    st.lists(VALUES),
)


def one_by_one(rows: list[tuple[Any, ...]]) -> str:
    return ",".join(f"({','.join(map(literal, row))})" for row in rows)


class TestRowLiterals:
    @given(
        st.lists(COLUMNS.filter(bool), min_size=1, max_size=4), st.sampled_from([1, 7, 8, 99, 250])
    )
    def test_rows_are_formatted_as_their_values_alone(
        self, columns: list[list[Any]], count: int
    ) -> None:
        rows = [tuple(column[n % len(column)] for column in columns) for n in range(count)]

        (piece,) = row_literals(rows, max_bytes=10**9)

        assert piece == (count, one_by_one(rows))

    def test_pieces_hold_all_rows_in_their_order(self) -> None:
        rows = [(number, "😀" * 100) for number in range(1001)]

        pieces = list(row_literals(rows, max_bytes=50_000))

        assert sum(piece.rows for piece in pieces) == 1001
        assert ",".join(piece.sql for piece in pieces) == one_by_one(rows)
        assert max(len(piece.sql.encode()) for piece in pieces) < 100_000

    @pytest.mark.parametrize("count", [1, 20])
    def test_value_of_another_type_is_refused(self, count: int) -> None:
        with pytest.raises(TypeError):
            list(row_literals([(True,)] * count, max_bytes=1000))
