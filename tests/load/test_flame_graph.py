"""Flame graphs of known stacks."""

import re
from xml.etree import ElementTree

import pytest

from tests.load.flame_graph import LEAST_SHARE, WIDTH, Frame, flame_graph, tree_of

MAIN = "thread (7): MainThread"
LOOP = f"{MAIN};<module> (catalog/server/start.py:1);Runner.run (asyncio/runners.py:118)"
STACKS = f"""\
{LOOP};serve (catalog/a.py:3) 50
{LOOP};serve (catalog/a.py:9);send (socket.py:5) 30
{LOOP} 10
{MAIN};connect (sqlalchemy/pool.py:7) 10
thread (8): log;<module> (threading.py:1);wait (threading.py:7) 300
"""

SVG = "{http://www.w3.org/2000/svg}"


def bars(picture: str) -> dict[str, float]:
    """Return the widths of the bars by their titles."""
    widths = {}
    for group in ElementTree.fromstring(picture).iter(f"{SVG}g"):  # noqa: S314 (our own)
        title, bar = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None
        assert bar is not None
        widths[str(title.text)] = float(bar.attrib["width"])
    return widths


class TestTree:
    def test_lines_of_a_function_are_one_frame(self) -> None:
        serve = tree_of(STACKS).callees["serve (catalog/a.py)"]

        assert (serve.samples, serve.callees["send (socket.py)"].samples) == (80, 30)

    def test_event_loop_is_the_root(self) -> None:
        root = tree_of(STACKS)

        assert root.samples == 100
        assert list(root.callees) == ["serve (catalog/a.py)", "connect (sqlalchemy/pool.py)"]

    def test_other_threads_are_left_out(self) -> None:
        assert "wait" not in str(tree_of(STACKS))

    @pytest.mark.parametrize(
        ("dropped", "left"), [(-1, 100), (0, 100), (4, 96), (10, 90), (99, 90)]
    )
    def test_own_samples_alone_are_dropped(self, dropped: int, left: int) -> None:
        root = tree_of(STACKS)

        root.drop_own(dropped)

        assert root.samples == left
        assert root.callees["serve (catalog/a.py)"].samples == 80

    def test_recursive_function_counts_once_per_level(self) -> None:
        root = tree_of(f"{LOOP};f (a.py:1);f (a.py:2);f (a.py:1) 5\n")

        assert root.samples == root.callees["f (a.py)"].samples == 5
        assert root.depth(1) == 3

    @pytest.mark.parametrize("stacks", [f"{LOOP};f (a.py:1)\n", f"{LOOP};f (a.py:1) many\n"])
    def test_line_without_a_count_is_refused(self, stacks: str) -> None:
        with pytest.raises(ValueError, match="invalid literal"):
            tree_of(stacks)


class TestPicture:
    def test_bar_is_as_wide_as_its_share(self) -> None:
        widths = bars(flame_graph("A", tree_of(STACKS)))

        assert set(widths) == {
            "the event loop: 100.0%",
            "serve (catalog/a.py): 80.0%",
            "send (socket.py): 30.0%",
            "connect (sqlalchemy/pool.py): 10.0%",
        }
        assert widths["send (socket.py): 30.0%"] == pytest.approx(0.3 * WIDTH, rel=0.02)

    def test_small_bars_are_left_out_with_what_they_call(self) -> None:
        samples = 10_000
        few = int(LEAST_SHARE * samples) - 1
        root = Frame("all")
        root.add(["large (a.py)"], samples - few)
        root.add(["small (a.py)", "inner (a.py)"], few)

        assert not re.search("small|inner", flame_graph("A", root))

    def test_size_is_bounded_whatever_the_stacks(self) -> None:
        stacks = (
            ";".join(
                f"{letter}{number % width} (catalog/some/module_of_it.py:{number})"
                for width, letter in ((2, "a"), (5, "b"), (20, "c"), (200, "d"))
            )
            for number in range(2000)
        )
        root = tree_of("".join(f"{LOOP};{stack} 1\n" for stack in stacks))

        assert len(flame_graph("A", root)) < 150_000

    def test_names_are_escaped(self) -> None:
        picture = flame_graph("<A> & B", tree_of(f"{LOOP};<listcomp> (a.py:1) 3\n"))

        assert "<listcomp> (a.py): 100.0%" in bars(picture)
        assert "&lt;A&gt; &amp; B" in picture

    def test_picture_without_samples_has_only_the_loop(self) -> None:
        assert list(bars(flame_graph("A", tree_of("")))) == ["the event loop: 0.0%"]
