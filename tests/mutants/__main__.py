"""Measure which small faults the tests notice: ./build.sh mutants."""

import argparse
import hashlib
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tests.mutants.operators import Mutant, mutants_of
from tests.mutants.runs import Outcome, Run, copies_of, load_libraries, mirror_of, run_all

ROOT = Path(__file__).parents[2]
EMBEDDED, SERVER = "sqlite", "mariadb"
PACKAGES = ("catalog/concurrency", "catalog/http", "catalog/auth", "catalog/products")


class Explained(NamedTuple):
    """Mutant that no test can or need notice, found by its text: line numbers change."""

    module: str
    was: str
    becomes: str


def main() -> int:
    options = parse(sys.argv[1:])
    modules = modules_of(options.root, options.modules)
    explained = read_explained(options.root)
    chosen: list[Mutant] = []
    stale = set(explained)
    for module in modules:
        mutants = mutants_of(PurePosixPath(module), (options.root / module).read_bytes())
        stale -= {key_of(mutant) for mutant in mutants}
        chosen += sample(mutants, options.seed, options.sample)
    left_out = [mutant for mutant in chosen if key_of(mutant) in explained]
    tried = [mutant for mutant in chosen if key_of(mutant) not in explained]

    load_libraries(options.root)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = copies_of(options.root, Path(folder), options.jobs)
        limits = limits_of(options.root, copies, tried, options.min_seconds, EMBEDDED)
        failing = {mutant.module for mutant in tried} - limits.keys()
        tried = [mutant for mutant in tried if mutant.module in limits]
        survivors = run_mutants(options.root, copies, tried, limits, EMBEDDED)
        # Some statements and their tests are for servers alone, which take seconds to start.
        limits = limits_of(options.root, copies, survivors, options.min_seconds, SERVER)
        again = [mutant for mutant in survivors if mutant.module in limits]
        killed_there = {*again} - {*run_mutants(options.root, copies, again, limits, SERVER)}
        survivors = [mutant for mutant in survivors if mutant not in killed_there]

    for mutant in survivors:
        say(f"\n{place_of(mutant)}\n- {mutant.was}\n+ {mutant.becomes}")
    killed = report(tried, survivors, left_out)
    outdated = [each for each in stale if each.module in modules]
    for entry in outdated:
        say(f"explained, but not a mutant of {entry.module} any more: {entry.was}")
    for module in sorted(failing):
        say(f"not measured, because its tests fail without a mutant: {module}")
    return 0 if killed >= options.threshold and not outdated and not failing else 1


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./build.sh mutants", description=__doc__)
    add = parser.add_argument
    add("--modules", nargs="+", default=PACKAGES, metavar="PATH", help="modules or folders")
    add("--sample", type=int, default=3, help="mutants of each module; 0 for all (default: 3)")
    add("--seed", type=int, default=1, help="another seed draws another sample (default: 1)")
    add("--jobs", type=int, default=1, help="runs at the same time (default: 1)")
    add("--threshold", type=float, default=85, help="percentage that must die (default: 85)")
    add("--min-seconds", type=float, default=30, help="shortest time-out (default: 30)")
    add("--root", type=Path, default=ROOT, help="another tree")
    options = parser.parse_args(arguments)
    options.root = options.root.resolve()
    return options


def modules_of(root: Path, paths: Iterable[str]) -> list[str]:
    """Return the modules at or below these paths, relative to the root."""
    found: dict[str, None] = {}
    for path in paths:
        full = root / path
        files = sorted(full.rglob("*.py")) if full.is_dir() else [full]
        if not full.exists():
            sys.exit(f"{path} does not exist.")
        found.update(dict.fromkeys(file.relative_to(root).as_posix() for file in files))
    return list(found)


def read_explained(root: Path) -> dict[Explained, str]:
    """Return the explained mutants with the reasons."""
    path = root / "tests/mutants/explained.toml"
    entries = tomllib.loads(path.read_text())["mutant"] if path.exists() else []
    return {Explained(e["module"], e["was"], e["becomes"]): e["reason"] for e in entries}


def key_of(mutant: Mutant) -> Explained:
    return Explained(mutant.module, mutant.was, mutant.becomes)


def sample(mutants: list[Mutant], seed: int, count: int) -> list[Mutant]:
    """Draw mutants by their text, so that a change elsewhere in the module leaves the sample."""

    def rank(mutant: Mutant) -> bytes:
        text = f"{seed} {mutant.module} {mutant.was} {mutant.becomes} {mutant.number}"
        return hashlib.sha256(text.encode()).digest()

    drawn = sorted(mutants, key=rank)[: count or None]
    return sorted(drawn, key=lambda mutant: mutant.line)


def limits_of(
    root: Path, copies: list[Path], mutants: list[Mutant], shortest: float, engine: str
) -> dict[str, float]:
    """Return the time-out of each module whose tests pass without a mutant, from that run."""
    # Modules without tests of their own share those of their package, which run once for all.
    modules: dict[tuple[str, ...], list[str]] = {}
    for module in dict.fromkeys(mutant.module for mutant in mutants):
        modules.setdefault(tuple(mirror_of(root, module)), []).append(module)
    limits: dict[str, float] = {}
    runs = [Run(of[0], tests, engine) for tests, of in modules.items()]
    for run, outcome in run_all(root, copies, runs):
        say(f"{outcome.seconds:5.1f} s without a mutant on {engine}:", *run.tests)
        if outcome.status == 0:
            limit = shortest + 4 * outcome.seconds
            limits |= dict.fromkeys(modules[tuple(run.tests)], limit)
        else:
            say(outcome.output)
    return limits


def run_mutants(
    root: Path, copies: list[Path], mutants: list[Mutant], limits: dict[str, float], engine: str
) -> list[Mutant]:
    """Run each mutant, and return those that survive."""
    runs = {
        Run(
            each.module,
            tuple(mirror_of(root, each.module)),
            engine,
            each.source,
            limits[each.module],
        ): each
        for each in mutants
    }
    survivors = []
    for run, outcome in run_all(root, copies, list(runs)):
        mutant = runs[run]
        say(f"{outcome.seconds:5.1f} s", verdict(outcome), place_of(mutant))
        if outcome.status == 0:
            survivors.append(mutant)
    return sorted(survivors)


def place_of(mutant: Mutant) -> str:
    return f"{mutant.module}:{mutant.line}"


def verdict(outcome: Outcome) -> str:
    if outcome.status is None:
        return "killed by the time-out"
    return "survived" if outcome.status == 0 else "killed"


def report(tried: list[Mutant], survivors: list[Mutant], explained: list[Mutant]) -> float:
    """Print the table, and return the percentage that was killed."""
    counts = [Counter(mutant.module for mutant in each) for each in (tried, survivors, explained)]
    say(f"\n{'module':<50} killed survived explained")
    for module in sorted({mutant.module for mutant in (*tried, *explained)}):
        total, survived, left_out = (count[module] for count in counts)
        say(f"{module:<50} {total - survived:>6} {survived:>8} {left_out:>9}")
    killed = len(tried) - len(survivors)
    share = 100 * killed / len(tried) if tried else 100.0
    say(f"{'all':<50} {killed:>6} {len(survivors):>8} {len(explained):>9}")
    say(f"\n{share:.1f} % of {len(tried)} mutants died.")
    return share


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
