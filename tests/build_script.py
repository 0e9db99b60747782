"""``./build.sh`` as text, and the commands that it names."""

import re
from pathlib import Path

SCRIPT = (Path(__file__).parent.parent / "build.sh").read_text(encoding="utf-8")


def commands() -> set[str]:
    """Return the commands that build.sh dispatches."""
    cases = re.findall(r"^  ([a-z| ]+)\) ", SCRIPT, re.MULTILINE)
    return {name for case in cases for name in case.split(" | ")}
