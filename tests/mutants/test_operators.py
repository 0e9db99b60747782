"""Each operator makes its mutants, and leaves alone what no test can notice."""

from pathlib import PurePosixPath
from textwrap import dedent

import pytest

from tests.mutants.operators import mutants_of


def mutated(source: str) -> list[str]:
    """Return the lines that mutants have in place of the module's."""
    found = mutants_of(PurePosixPath("shop/prices.py"), dedent(source).encode())
    return [mutant.becomes for mutant in found]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("x = a < b", ["x = a <= b"]),
        ("x = a is not b", ["x = a is b"]),
        ("x = (a) not in (b)", ["x = (a) in (b)"]),
        ("x = a < b == c", ["x = a <= b == c", "x = a < b != c"]),
        ("x = a and b or c", ["x = a or b or c", "x = a and b and c"]),
        ("x = not (a or b)", ["x = (a or b)", "x = not (a and b)"]),
        ("x = True", ["x = False"]),
        ("x = 9", ["x = 10"]),
        ("x = 0.5", ["x = 1.5"]),
        ("x = 'ä' < b", ["x = 'äXX' < b", "x = 'ä' <= b"]),
        ("x = b'a'", ["x = b'aXX'"]),
        ("print(x)", ["pass"]),
    ],
)
def test_expression_has_one_mutant_for_each_operator_in_it(line: str, expected: list[str]) -> None:
    assert mutated(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("MAX_BYTES = 128 * 1024", []),
        ("_MOST = 10", []),
        ("MAX_TRIES = 9", ["MAX_TRIES = 10"]),
        ("SECONDS = 30.0", ["SECONDS = 31.0"]),
        ("most = 128", ["most = 129"]),
        ("MOST = f(most=128) + g(lambda x: x < 10)", ["MOST = f(most=128) + g(lambda x: x <= 10)"]),
    ],
)
def test_bound_of_a_constant_is_not_raised_by_one(line: str, expected: list[str]) -> None:
    assert mutated(line) == expected


def test_statement_is_removed() -> None:
    source = """
    @cached
    async def refresh(stock):
        await stock.load()
        if stock:
            raise Empty("Nothing is left.")
        return stock
    """

    assert mutated(source) == [
        "async def refresh(stock):",
        "pass",
        "pass",
        "return None",
    ]


def test_operator_on_a_line_of_its_own_is_found() -> None:
    source = """
    x = (
        (a)  # or not
        and (b)
    )
    """

    assert mutated(source) == ["or (b)"]


@pytest.mark.parametrize(
    "source",
    [
        "'''Sum prices.'''",
        "x: Annotated[int, 5]",
        "def price(x: 'int', /) -> 'str':\n    '''Return it.'''\n    return None",
        "T = TypeVar('T', bound='int')",
        "class Shop(Protocol):\n    limit = 5",
        "if TYPE_CHECKING:\n    x = 5",
        "class Shop:\n    def __repr__(self):\n        return 'Shop'",
        "assert x == 5",
        "__all__ = ['x']",
        "x = f'{y} of {5}'",
        "x = 'Nothing is left.'",
        "x = Field(description='price')",
        "x = Field(examples=[5])",
        "@overload\ndef price(x=5): ...",
        "@abstractmethod\ndef price(x): ...",
        "Price = dataclass(frozen=True, slots=True)(Sum)",
    ],
)
def test_types_and_texts_for_people_have_no_mutants(source: str) -> None:
    assert mutated(source) == []


def test_strings_of_a_log_call_and_an_error_are_left_alone() -> None:
    assert mutated("log.info('shop_open', place='here')") == ["pass"]
    assert mutated("raise Empty('stock')") == ["pass"]


def test_equal_mutants_of_equal_lines_are_numbered() -> None:
    found = mutants_of(PurePosixPath("shop/prices.py"), b"x = 1\nx = 1\n")

    assert [(mutant.line, mutant.number) for mutant in found] == [(1, 0), (2, 1)]
