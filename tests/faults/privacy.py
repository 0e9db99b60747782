"""Watches that a caller sees nothing of another account; loaded by ``SCHEMATHESIS_HOOKS``.

``CATALOG_TEST_PRIVATE`` names a JSON file with texts that no answer may hold and with ids of what
is the other account's; half of the valid requests that name an id get one of those.
``CATALOG_TEST_SEEN`` names a folder for the counts of a run.
"""

import atexit
import json
import os
from itertools import count
from pathlib import Path
from typing import Any

import schemathesis

PRIVATE = json.loads(Path(os.environ["CATALOG_TEST_PRIVATE"]).read_text())
TEXTS: list[str] = PRIVATE["texts"]
IDS: dict[str, list[int]] = PRIVATE["ids"]

SEEN = {"answers": 0, "aimed": 0}
"""How many answers were looked at, and how many requests name something of the other's."""

_turns = count()


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:  # noqa: ARG001 (the library's signature)
    """Aim every second valid request at what is the other's; let no long poll take long."""
    meta = case.meta
    if meta is None or not meta.generation.mode.is_positive or meta.phase.name.value != "fuzzing":
        return case
    if case.query and case.query.get("wait"):
        case.query["wait"] = 1
    for name in case.path_parameters or {}:
        if name in IDS and (turn := next(_turns)) % 2:
            ids = IDS[name]
            case.path_parameters[name] = ids[turn // 2 % len(ids)]
            SEEN["aimed"] += 1
    return case


@schemathesis.check
def nothing_private_is_told(context: Any, response: Any, case: Any) -> None:  # noqa: ARG001 (the same)
    """Look for the other's texts in an answer."""
    SEEN["answers"] += 1
    text = f"{dict(response.headers)}\n{response.content.decode(errors='replace')}"
    found = [each for each in TEXTS if each in text]
    assert not found, f"The answer holds what is another account's: {found}"


@atexit.register
def _save() -> None:
    folder = Path(os.environ["CATALOG_TEST_SEEN"])
    (folder / f"{os.getpid()}.json").write_text(json.dumps(SEEN))
