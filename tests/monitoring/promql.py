"""Metrics, labels and label values of a PromQL expression.

It reads tokens and not the grammar; promtool checks whether an expression is valid.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

AGGREGATIONS = {
    *("sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"),
    *("topk", "bottomk", "quantile", "count_values"),
}
GROUPINGS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
OPERATORS = {"and", "or", "unless", "offset", "bool", "atan2", "inf", "nan"}

TOKENS = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?P<range>\[[^\]]*\])
    |(?P<word>[A-Za-z_:][\w:]*)
    |(?P<number>[\d.][\w.]*)
    |(?P<sign>=~|!~|!=|==|>=|<=|\S)""",
    re.VERBOSE,
)

SEPARATORS = {",", "(", ")"}


@dataclass(frozen=True)
class Selector:
    """A metric and its label matchers: name, operator, value."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Expression:
    """The selectors and grouping labels of an expression."""

    selectors: tuple[Selector, ...]
    groupings: frozenset[str]

    @property
    def metrics(self) -> set[str]:
        return {selector.metric for selector in self.selectors}


def read(text: str) -> Expression:
    """Find the selectors, and the labels by which results are grouped."""
    tokens = [match[0] for match in TOKENS.finditer(re.sub(r"#.*", "", text))]
    selectors: list[Selector] = []
    groupings: set[str] = set()
    at = 0
    while at < len(tokens):
        token = tokens[at]
        following = tokens[at + 1] if at + 1 < len(tokens) else ""
        at += 1
        if token in GROUPINGS:
            if following == "(":
                end = tokens.index(")", at)
                groupings.update(set(tokens[at:end]) - SEPARATORS)
                at = end + 1
        elif not re.fullmatch(r"[A-Za-z_:][\w:]*", token) or token.lower() in OPERATORS:
            continue
        elif following != "(" and token not in AGGREGATIONS:
            matchers: tuple[tuple[str, str, str], ...] = ()
            if following == "{":
                end = tokens.index("}", at)
                matchers = tuple(_matchers(tokens[at + 1 : end]))
                at = end + 1
            selectors.append(Selector(token, matchers))
    return Expression(tuple(selectors), frozenset(groupings))


def _matchers(tokens: list[str]) -> Iterator[tuple[str, str, str]]:
    words = [token for token in tokens if token != ","]
    for label, operator, value in zip(words[::3], words[1::3], words[2::3], strict=True):
        yield label, operator, value[1:-1]
