"""Flame graphs: from the stacks of a sampling profiler to a small SVG.

A bar is a function, as wide as the share of the samples that it was in; what it called stands above
it. Small bars are left out, so that a picture stays readable and a file small.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape

LEAST_SHARE = 0.005
"""Of all samples, below which a bar is left out; its caller is as wide as before."""

WIDTH, ROW, MARGIN = 1200, 17, 4
HEAD = 26
LETTER = 6.3
"""Width of a letter at this size, in pixels, as an estimate."""

_LINE = re.compile(r":\d+\)$")

_MAIN_THREAD = re.compile(r"^thread \(\w+\): MainThread$")
_LOOP = "Runner.run (asyncio/runners.py)"
"""Lowest frame of all stacks of the event loop, except those of greenlets."""

_COLOURS = (
    (re.compile(r"\((?:.*/)?catalog/"), "#7fb3c8"),
    (re.compile(r"\((?:.*/)?(?:aiomysql|pymysql|sqlalchemy)/"), "#e3b35f"),
    (re.compile(r"\((?:.*/)?(?:asyncio|hypercorn)/|^the event loop$"), "#c9c9c9"),
)
_OTHERS = "#d8a7a0"
LEGEND = "blue: the service; yellow: SQLAlchemy, driver; grey: asyncio, hypercorn; red: the rest"


@dataclass
class Frame:
    """A function in a stack, with the samples of all stacks that go through it."""

    name: str
    samples: int = 0
    callees: dict[str, "Frame"] = field(default_factory=dict)

    def add(self, names: Iterable[str], samples: int) -> None:
        """Count a stack below this frame."""
        frame = self
        frame.samples += samples
        for name in names:
            frame = frame.callees.setdefault(name, Frame(name))
            frame.samples += samples

    def drop_own(self, samples: int) -> None:
        """Drop so many of the samples in which nothing above this frame ran, as far as it has any.

        Negative numbers drop none.
        """
        own = self.samples - sum(each.samples for each in self.callees.values())
        self.samples -= max(0, min(samples, own))

    def depth(self, least: float) -> int:
        """Return the number of rows above this one, of bars with at least so many samples."""
        shown = [each for each in self.callees.values() if each.samples >= least]
        return max((1 + each.depth(least) for each in shown), default=0)


def tree_of(stacks: str) -> Frame:
    """Return the tree of a main thread's stacks.

    Lines of one function are one bar. What all stacks of an event loop have in common is the root,
    whose own share is that of the loop itself. Other threads are left out: those that wait look
    busy when the process is paused for a sample.

    Args:
        stacks: of all threads, one a line: thread, functions from the outermost on, and a count.

    Raises:
        ValueError: a line has another form.
    """
    root = Frame("the event loop")
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        samples = int(count)
        thread, *names = [_LINE.sub(")", name) for name in stack.split(";")]
        if _MAIN_THREAD.match(thread):
            start = names.index(_LOOP) + 1 if _LOOP in names else 0
            root.add(names[start:], samples)
    return root


def flame_graph(title: str, root: Frame) -> str:
    """Return an SVG with the widest callees first and no bar below ``LEAST_SHARE``."""
    least = max(LEAST_SHARE * root.samples, 1)
    rows = root.depth(least) + 1
    height = HEAD + rows * ROW + 2 * MARGIN + ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{MARGIN}" y="17" font-size="14" font-weight="bold">{escape(title)}</text>',
        *_bars(root, root.samples, least, left=0.0, row=0, bottom=height - 2 * ROW),
        f'<text x="{MARGIN}" y="{height - 5}" fill="#555">{LEGEND}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _bars(
    frame: Frame, total: int, least: float, *, left: float, row: int, bottom: int
) -> Iterator[str]:
    scale = (WIDTH - 2 * MARGIN) / max(total, 1)
    width = frame.samples * scale
    x, y = MARGIN + left, bottom - row * ROW
    share = frame.samples / max(total, 1)
    yield (
        f'<g><title>{escape(frame.name)}: {share:.1%}</title><rect x="{x:.1f}" y="{y}"'
        f' width="{max(width - 0.5, 0.5):.1f}" height="{ROW - 1}" rx="1"'
        f' fill="{_colour_of(frame.name)}"/>{_label(frame.name, x, y, width)}</g>'
    )
    for each in sorted(frame.callees.values(), key=lambda each: -each.samples):
        if each.samples >= least:
            yield from _bars(each, total, least, left=left, row=row + 1, bottom=bottom)
        left += each.samples * scale


def _label(name: str, x: float, y: int, width: float) -> str:
    """Return the name of a bar, or of its function alone, as far as it fits."""
    for text in (name, name.partition(" (")[0]):
        if LETTER * len(text) + 6 <= width:
            return f'<text x="{x + 3:.1f}" y="{y + 12}">{escape(text)}</text>'
    fits = int((width - 6) / LETTER) - 1
    if fits < 3:
        return ""
    return f'<text x="{x + 3:.1f}" y="{y + 12}">{escape(name[:fits])}…</text>'


def _colour_of(name: str) -> str:
    return next((colour for rule, colour in _COLOURS if rule.search(name)), _OTHERS)
