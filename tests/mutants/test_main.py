"""A run over a small package: mutants die, survive, hang or are explained."""

import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

from tests.mutants.__main__ import ROOT, key_of, read_explained, sample
from tests.mutants.operators import mutants_of
from tests.mutants.runs import mirror_of

FILES = {
    "shop/__init__.py": "",
    "shop/prices.py": """\
def is_free(price):
    return price == 0


def is_dear(price):
    return price > 100


def empty(stock):
    while stock:
        stock.pop()
""",
    "tests/__init__.py": "",
    "tests/conftest.py": """\
def pytest_addoption(parser):
    parser.addoption("--engine")
""",
    "tests/test_prices.py": """\
from shop.prices import empty, is_dear, is_free


def test_prices():
    assert is_free(0) and not is_free(1) and is_free(1) is False
    assert is_dear(200) and is_dear(50) is False
    stock = [1, 2]
    empty(stock)
    assert stock == []
""",
    "tests/mutants/explained.toml": """\
[[mutant]]
module = "shop/prices.py"
was = "return price > 100"
becomes = "return price > 101"
reason = "Prices are even."
""",
}

X = PurePosixPath("x.py")


class Finished(NamedTuple):
    """A mutation run that has ended."""

    status: int
    output: str


def fake_tree(root: Path, **changed: str) -> Path:
    for name, text in (FILES | changed).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def run_over(root: Path, *arguments: str) -> Finished:
    command = [sys.executable, "-m", "tests.mutants", "--root", str(root), "--modules", "shop"]
    command += ["--sample", "0", "--min-seconds", "2", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return Finished(done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the small package with its tests."""
    return fake_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def finished(tree: Path) -> Finished:
    """Return the outcome of a run over all its mutants, two at a time."""
    return run_over(tree, "--jobs", "2")


class TestRun:
    def test_mutant_that_the_tests_notice_is_killed(self, finished: Finished) -> None:
        assert "killed shop/prices.py:2" in finished.output
        assert "survived shop/prices.py:2" not in finished.output

    def test_survivor_is_printed_with_its_place(self, finished: Finished) -> None:
        survivor = "shop/prices.py:6\n- return price > 100\n+ return price >= 100\n"
        assert survivor in finished.output
        assert "survived shop/prices.py:6" in finished.output

    def test_mutant_that_hangs_is_killed_by_the_timeout(self, finished: Finished) -> None:
        assert "killed by the time-out shop/prices.py:11" in finished.output

    def test_explained_mutant_is_not_run_and_not_counted(self, finished: Finished) -> None:
        counts = next(line.split() for line in finished.output.splitlines() if line[:3] == "all")

        assert counts == ["all", "5", "1", "1"]
        assert "83.3 % of 6 mutants died." in finished.output

    def test_exit_status_is_non_zero_below_the_threshold(self, finished: Finished) -> None:
        assert finished.status == 1

    def test_tree_is_not_changed(self, tree: Path, finished: Finished) -> None:
        assert finished.output
        assert all((tree / name).read_text() == text for name, text in FILES.items())


def test_lower_threshold_is_reached(tree: Path) -> None:
    assert run_over(tree, "--threshold", "0", "--sample", "1").status == 0


def test_module_whose_tests_fail_without_a_mutant_is_not_measured(tmp_path: Path) -> None:
    failing = {"tests/test_prices.py": "def test_prices():\n    assert False\n"}

    finished = run_over(fake_tree(tmp_path, **failing))

    assert finished.status == 1
    assert "its tests fail without a mutant: shop/prices.py" in finished.output
    assert "100.0 % of 0 mutants died." in finished.output


def test_explanation_of_a_removed_line_is_reported(tmp_path: Path) -> None:
    tree = fake_tree(tmp_path, **{"shop/prices.py": "def is_free(price):\n    return not price\n"})
    (tree / "tests/test_prices.py").write_text(
        "from shop.prices import is_free\n\n\ndef test_prices():\n    assert is_free(0) is True\n"
    )

    finished = run_over(tree)

    assert finished.status == 1
    assert "not a mutant of shop/prices.py any more: return price > 100" in finished.output


def test_survivor_is_tried_again_on_a_server(tmp_path: Path) -> None:
    on_a_server = """\
from shop.prices import is_free


def test_prices(pytestconfig):
    if pytestconfig.getoption("--engine") != "sqlite":
        assert is_free(0) is True
"""
    module = "def is_free(price):\n    return not price\n"
    tree = fake_tree(tmp_path, **{"shop/prices.py": module, "tests/test_prices.py": on_a_server})
    (tree / "tests/mutants/explained.toml").unlink()

    finished = run_over(tree)

    assert finished.status == 0
    assert finished.output.count("s survived shop/prices.py:2") == 2
    assert finished.output.count("s killed shop/prices.py:2") == 2
    assert "100.0 % of 2 mutants died." in finished.output


class TestSample:
    def test_sample_depends_on_the_seed_alone(self) -> None:
        mutants = mutants_of(X, b"\n".join(b"x = %d" % each for each in range(50)))

        assert sample(mutants, 1, 5) == sample(mutants[::-1], 1, 5)
        assert sample(mutants, 1, 5) != sample(mutants, 2, 5)

    def test_new_line_above_leaves_the_sample(self) -> None:
        source = b"\n".join(b"x = %d" % each for each in range(50))
        before = sample(mutants_of(X, source), 1, 5)
        after = sample(mutants_of(X, b"import os\n" + source), 1, 5)

        assert [each.was for each in before] == [each.was for each in after]

    def test_sample_of_zero_returns_all_mutants(self) -> None:
        mutants = mutants_of(X, b"x = 1\ny = 2\n")

        assert sample(mutants, 1, 0) == mutants


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("catalog/auth/tokens/jwt.py", "tests/auth/tokens/test_jwt.py"),
        ("catalog/auth/routes/users.py", "tests/auth/test_user_routes.py"),
        ("catalog/auth/routes/sign_in.py", "tests/auth/test_routes.py"),
        ("catalog/products/routes/bulk.py", "tests/products/bulk/test_bulk_routes.py"),
        ("catalog/products/routes/changes.py", "tests/products/changes"),
        ("catalog/products/nothing_tests_this.py", "tests/products"),
        ("catalog/products/listing/nothing_tests_this.py", "tests/products/listing"),
    ],
)
def test_mirror_of_a_module_are_its_mirror_or_its_package(module: str, expected: str) -> None:
    assert mirror_of(ROOT, module) == [expected]


def test_explained_mutants_are_mutants_of_the_code() -> None:
    explained = set(read_explained(ROOT))
    modules = {each.module for each in explained}
    found = {
        key_of(mutant)
        for module in modules
        for mutant in mutants_of(PurePosixPath(module), (ROOT / module).read_bytes())
    }

    assert explained
    assert explained - found == set()
