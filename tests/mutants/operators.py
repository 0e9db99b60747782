"""Mutants of one module: each differs from it by one small fault."""

import ast
import re
from collections import Counter
from pathlib import PurePosixPath
from typing import NamedTuple

SWAPS = {
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "!=",
    "!=": "==",
    "is": "is not",
    "is not": "is",
    "in": "not in",
    "not in": "in",
    "and": "or",
    "or": "and",
}

# Between two operands stand parentheses, comments and line breaks, and the operator among them.
_OPERATOR = re.compile(
    rb"(?:[\s()\\]|\#[^\n]*)*(<=|>=|==|!=|<|>|is\s+not\b|not\s+in\b|is\b|in\b|and\b|or\b)"
)

WITHOUT_EFFECT = {"overload", "abstractmethod", "override", "final", "runtime_checkable"}
"""Decorators that only type checkers obey, or whose loss no caller can notice."""

TYPING_CALLS = {"TypeVar", "ParamSpec", "NewType", "cast"}
LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}

LEAST_BOUND = 10
"""Least number that is a bound of magnitude where a constant has it: one more is no fault."""

DATACLASS_OPTIONS = {"frozen", "slots"}
"""Keyword arguments without effect on correct callers: they prevent mistakes or save memory."""

DOCUMENTATION = {"description", "title", "summary", "help", "examples"}
"""Keyword arguments whose values are read by people."""


class Mutant(NamedTuple):
    """One fault.

    Attributes:
        module: path relative to the root, with slashes.
        line: number of the first line that differs.
        was: those lines of the module, stripped and joined.
        becomes: the lines in their place, likewise.
        source: the whole mutated module.
        number: how many mutants of the module with the same two texts precede it.
    """

    module: str
    line: int
    was: str
    becomes: str
    source: bytes
    number: int


def mutants_of(module: PurePosixPath, source: bytes) -> list[Mutant]:
    """Return all mutants of a module that compile, from top to bottom."""
    found: list[Mutant] = []
    seen: Counter[tuple[str, str]] = Counter()
    edits = _Edits(source)
    edits.visit(ast.parse(source))
    for start, end, replacement in sorted(set(edits.found)):
        mutated = source[:start] + replacement + source[end:]
        try:
            compile(mutated, str(module), "exec")
        except SyntaxError:
            continue
        was = _lines(source, start, end)
        becomes = _lines(mutated, start, start + len(replacement))
        line = source.count(b"\n", 0, start) + 1
        found.append(Mutant(str(module), line, was, becomes, mutated, seen[was, becomes]))
        seen[was, becomes] += 1
    return found


def _lines(source: bytes, start: int, end: int) -> str:
    """Return the lines that a range touches, in one."""
    first = source.rfind(b"\n", 0, start) + 1
    last = source.find(b"\n", max(end - 1, first))
    text = source[first : len(source) if last < 0 else last].decode()
    return " ".join(line.strip() for line in text.splitlines())


class _Edits(ast.NodeVisitor):
    """Collector of edits: the range in bytes, and the text that replaces it."""

    def __init__(self, source: bytes) -> None:
        self.found: list[tuple[int, int, bytes]] = []
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._prose = False
        self._is_constant = False

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        names = {_name(decorator) for decorator in node.decorator_list}
        if node.name in {"__repr__", "__str__"} or "overload" in names:
            return
        self._decorators(node)
        arguments = node.args
        defaults = [*arguments.defaults, *filter(None, arguments.kw_defaults)]
        for child in (*defaults, *node.body):
            self.visit(child)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 (the name that ast calls)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if "Protocol" in {_name(base) for base in node.bases}:
            return
        self._decorators(node)
        for child in node.body:
            self.visit(child)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = {_name(target) for target in node.targets}
        if not {"__all__", "__slots__"} & names:
            self._is_constant = all(map(str.isupper, names))
            self.generic_visit(node)
            self._is_constant = False

    def visit_Assert(self, node: ast.Assert) -> None:
        """Skip it: asserts are for the type checker."""

    def visit_If(self, node: ast.If) -> None:
        if _name(node.test) == "TYPE_CHECKING":
            for child in node.orelse:
                self.visit(child)
        else:
            self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return
        value = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(value, ast.Call):
            self._replace(node, b"pass")
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        value = node.value
        if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
            self._replace(node, b"return None")
            self.visit(value)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._replace(node, b"pass")
        prose, self._prose = self._prose, True
        self.generic_visit(node)
        self._prose = prose

    def visit_Call(self, node: ast.Call) -> None:
        name = _name(node.func)
        if name in TYPING_CALLS:
            return
        self.visit(node.func)
        is_log = isinstance(node.func, ast.Attribute) and name in LOG_METHODS
        prose = self._prose
        for argument in node.args:
            self._prose = prose or is_log
            self.visit(argument)
        for keyword in node.keywords:
            is_option = name == "dataclass" and keyword.arg in DATACLASS_OPTIONS
            if is_option or keyword.arg in DOCUMENTATION:
                continue
            self._prose = prose or is_log
            self.visit(keyword.value)
        self._prose = prose

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, right in zip((node.left, *node.comparators), node.comparators, strict=False):
            self._swap(left, right)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._swap(left, right)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            start = self._start(node)
            self.found.append((start, start + len(b"not "), b""))
        self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Skip it: it is a message, and Python 3.11 gives no positions inside."""

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._replace(node, str(not value).encode())
        elif isinstance(value, int) and value >= LEAST_BOUND and self._is_constant:
            return
        elif isinstance(value, int | float):
            self._replace(node, repr(value + 1).encode())
        elif isinstance(value, bytes):
            self._replace(node, repr(value + b"XX").encode())
        elif isinstance(value, str) and not self._prose and not _is_sentence(value):
            self._replace(node, repr(value + "XX").encode())

    def _decorators(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            if _name(decorator) not in WITHOUT_EFFECT:
                last = decorator.end_lineno or decorator.lineno
                self.found.append((self._starts[decorator.lineno - 1], self._starts[last], b""))
            self.visit(decorator)

    def _swap(self, left: ast.expr, right: ast.expr) -> None:
        match = _OPERATOR.match(self._source, self._end(left), self._start(right))
        if match:
            swapped = SWAPS[" ".join(match[1].decode().split())]
            self.found.append((*match.span(1), swapped.encode()))

    def _replace(self, node: ast.stmt | ast.expr, replacement: bytes) -> None:
        self.found.append((self._start(node), self._end(node), replacement))

    def _start(self, node: ast.stmt | ast.expr) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.stmt | ast.expr) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset


def _name(node: ast.expr) -> str:
    """Return the last part of a name, of what is called or subscripted."""
    match node:
        case ast.Call(func=inner) | ast.Subscript(value=inner):
            return _name(inner)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def _is_sentence(text: str) -> bool:
    """Tell messages from values."""
    return " " in text and text[0].isupper() and text.rstrip().endswith((".", "!", ":", "?"))
