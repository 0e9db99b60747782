"""Coverage-guided fuzzing of a target: ``python -m tests.faults.fuzz TARGET [libFuzzer options]``.

A finding ends the process with a nonzero exit code and prints the input as Base64.
"""

import sys
import time

import atheris

BASE_SECONDS = 0.3
SECONDS_PER_BYTE = 0.2 / 65_536
"""CPU time allowed per input: coverage instrumentation makes Python several times slower."""

GUIDES = [
    "catalog.auth.guards",
    "catalog.auth.normalization",
    "catalog.auth.schemas",
    "catalog.auth.tokens.jwt",
    "catalog.http.idempotency_key",
    "catalog.http.replies.conditional",
    "catalog.http.replies.negotiation",
    "catalog.http.pagination",
    "catalog.http.strict_json",
    "catalog.normal_forms",
    "catalog.products.bulk.formats.csv",
    "catalog.products.bulk.formats.csv_header",
    "catalog.products.bulk.formats.encodings",
    "catalog.products.bulk.formats.formula_guard",
    "catalog.products.bulk.formats.lines",
    "catalog.products.bulk.formats.ndjson",
    "catalog.products.bulk.formats.unread_lines",
    "catalog.products.schemas",
    "catalog.products.search.tokenizer",
    "catalog.fastpath.request_parser",
    "catalog.products.selection",
    "tests.faults.fuzz_targets",
]
"""Instrumented modules, whose coverage guides the search."""

with atheris.instrument_imports(include=GUIDES):
    from tests.faults.fuzz_targets import TARGETS


class TooSlow(AssertionError):
    """CPU time above the bound for the input's length."""


def main() -> None:
    """Fuzz until a libFuzzer option ends the run or something is found."""
    name, *options = sys.argv[1:]
    target = TARGETS[name]
    # Warm-up: the first call does one-time initialization.
    target.run(target.seeds[0])

    def run(data: bytes) -> None:
        began = time.thread_time()
        target.run(data)
        seconds = time.thread_time() - began
        if seconds > BASE_SECONDS + SECONDS_PER_BYTE * len(data):
            raise TooSlow(f"{seconds:.3f} s for {len(data)} bytes")

    atheris.Setup([name, *options], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
