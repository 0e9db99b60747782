"""Runs of tests on copies of the tree, forked from a process with libraries loaded."""

import contextlib
import importlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", ".env", ".secrets", ".hypothesis", ".*_cache", "__pycache__", "var", "build"
)

MAX_MEMORY_BYTES = 4 << 30
"""Address space of a run: a mutant may collect without end."""

OPTIONS = (
    *("-q", "-x", "--hypothesis-seed=0"),
    # These cost a second in each run: the rewriting of asserts, and a plug-in.
    *("--assert=plain", "-p", "no:schemathesis", "-p", "no:cacheprovider"),
)


class Run(NamedTuple):
    """One run of tests.

    Attributes:
        module: path of the module under test, relative to the root.
        tests: paths of the tests, likewise.
        engine: the database engine.
        source: the module's text in this run; its own if not given.
        limit: seconds after which the run is ended.
    """

    module: str
    tests: Sequence[str]
    engine: str
    source: bytes | None = None
    limit: float = 1800


class Outcome(NamedTuple):
    """Outcome of a run: pytest's exit status, or None after a time-out."""

    status: int | None
    seconds: float
    output: str


class _Child(NamedTuple):
    pid: int
    number: int
    began: float
    tree: Path


def mirror_of(root: Path, module: str) -> list[str]:
    """Return the tests that mirror a module, or those of its package where it has none.

    ``catalog/auth/routes/users.py`` is tested by ``tests/auth/test_user_routes.py``, routes of a
    feature's part by the tests of that part, and other routes by ``tests/auth/test_routes.py``.
    Models are compared with the migrations.
    """
    _, *folders, name = Path(module).with_suffix("").parts
    folder = Path("tests", *folders)
    if folder.name == "routes":
        folder = folder.parent
        names = [f"test_{name}_routes.py", f"test_{name.removesuffix('s')}_routes.py"]
        names += [f"{name}/test_{name}_routes.py", name, "test_routes.py"]
        mirrors = [folder / each for each in names]
    elif name == "models":
        mirrors = [Path("tests/migrations/test_migrations.py")]
    else:
        mirrors = [folder / f"test_{name}.py"]
    for tests in (*mirrors, folder, *folder.parents):
        if (root / tests).exists():
            return [tests.as_posix()]
    return []


def load_libraries(root: Path) -> None:
    """Import what the tests import, but nothing from the tree itself: it takes seconds."""
    program = "import sys, tests.conftest; print(*sys.modules)"
    loading = [sys.executable, "-W", "ignore", "-c", program]
    printed = subprocess.run(loading, cwd=root, capture_output=True, text=True, check=True).stdout
    for name in printed.split():
        if not (root / name.partition(".")[0]).exists():
            # Some modules are parts that others make when they are imported.
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


def copies_of(root: Path, folder: Path, count: int) -> list[Path]:
    """Copy the tree, once for each run at the same time."""
    copies = [folder.resolve() / f"tree{number}" for number in range(count)]
    for copy in copies:
        shutil.copytree(root, copy, ignore=NOT_COPIED, symlinks=True)
    return copies


def run_all(
    root: Path, copies: Sequence[Path], runs: Sequence[Run]
) -> Iterator[tuple[Run, Outcome]]:
    """Yield each run with its outcome, in the order in which they end.

    Args:
        root: the tree; it is never changed.
        copies: copies of it; each serves one run at a time.
        runs: what to run.
    """
    trees = list(copies)
    waiting = list(enumerate(runs))[::-1]
    children: list[_Child] = []
    try:
        while waiting or children:
            while waiting and trees:
                number, run = waiting.pop()
                children.append(_start(root, trees.pop(), run, number))
            time.sleep(0.02)
            for child in list(children):
                run = runs[child.number]
                outcome = _poll(child, run)
                if outcome is not None:
                    children.remove(child)
                    _put(child.tree, run.module, (root / run.module).read_bytes())
                    trees.append(child.tree)
                    yield run, outcome
    finally:
        for child in children:
            _kill(child.pid)


def _start(root: Path, tree: Path, run: Run, number: int) -> _Child:
    if run.source is not None:
        _put(tree, run.module, run.source)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 3
        try:
            status = _test(root, tree, run)
        finally:
            os._exit(status)
    return _Child(pid, number, time.monotonic(), tree)


def _put(tree: Path, module: str, source: bytes) -> None:
    """Write a module, without the compiled one: two versions may have the same time and size."""
    path = tree / module
    path.write_bytes(source)
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def _test(root: Path, tree: Path, run: Run) -> int:
    """Run the tests in this process, which has just been forked."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, resource.RLIM_INFINITY))
    log = os.open(_log(tree), os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(tree)
    sys.path[:] = [str(tree), *(path for path in sys.path if path not in {"", str(root)})]
    # For processes that tests start.
    os.environ["PYTHONPATH"] = str(tree)
    for name in list(sys.modules):
        if name != "__main__" and (root / name.partition(".")[0]).exists():
            del sys.modules[name]
    status = pytest.main([*OPTIONS, "--engine", run.engine, f"--basetemp={tree}.tmp", *run.tests])
    sys.stdout.flush()
    sys.stderr.flush()
    return int(status)


def _log(tree: Path) -> Path:
    return tree.with_suffix(".log")


def _poll(child: _Child, run: Run) -> Outcome | None:
    """Return the outcome of a run, if it has ended or is ended now."""
    seconds = time.monotonic() - child.began
    pid, status = os.waitpid(child.pid, os.WNOHANG)
    code = os.waitstatus_to_exitcode(status) if pid else None
    if code is None:
        if seconds < run.limit:
            return None
        _end(child.pid)
    _kill(child.pid)
    return Outcome(code, seconds, _log(child.tree).read_text(errors="replace"))


def _end(pid: int) -> None:
    """End a run; for ten seconds it may stop the servers that its tests have started."""
    os.killpg(pid, signal.SIGTERM)
    until = time.monotonic() + 10
    while time.monotonic() < until and os.waitpid(pid, os.WNOHANG) == (0, 0):
        time.sleep(0.05)
    # Already reaped if it has ended.


def _kill(pid: int) -> None:
    """Kill what is left of a run and of the processes that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
