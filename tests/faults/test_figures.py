"""Tests of the table of figures that a run prints."""

from tests.faults.figures import Figures


class TestFigures:
    def test_table_shows_value_unit_and_limit(self) -> None:
        figures = Figures()

        figures.add("database frozen", "slowest read", 2.04321, unit="s", limit="2.2 s")

        assert (
            figures.table().splitlines()[-1]
            == "| database frozen | slowest read | 2.04 s | 2.2 s |"
        )

    def test_table_is_empty_without_figures(self) -> None:
        assert Figures().table() == ""
