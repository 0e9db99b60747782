"""Schemathesis hooks that detect leaks of another account; loaded by ``SCHEMATHESIS_HOOKS``.

``CATALOG_TEST_PRIVATE`` names a JSON file with texts that no response may contain, and ids that
belong to the other account; every second valid request with an id gets one of those.
``CATALOG_TEST_SEEN`` names a folder for the counts of a run.
"""

import atexit
import json
import os
from itertools import count
from pathlib import Path
from typing import Any

import schemathesis

import tests.server.bulk_bodies  # noqa: F401 (it registers how bodies of text are sent)

PRIVATE = json.loads(Path(os.environ["CATALOG_TEST_PRIVATE"]).read_text())
TEXTS: list[str] = PRIVATE["texts"]
IDS: dict[str, list[int]] = PRIVATE["ids"]

SEEN = {"answers": 0, "aimed": 0}
"""Responses checked, and requests that name an id of the other account."""

_turns = count()


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:  # noqa: ARG001 (the library's signature)
    """Replace the id of every second valid request by a foreign one; shorten long polls to 1 s."""
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
    """Fail if a response contains a private text of the other account."""
    SEEN["answers"] += 1
    text = f"{dict(response.headers)}\n{response.content.decode(errors='replace')}"
    found = [each for each in TEXTS if each in text]
    assert not found, f"The answer holds what is another account's: {found}"


@atexit.register
def _save() -> None:
    folder = Path(os.environ["CATALOG_TEST_SEEN"])
    (folder / f"{os.getpid()}.json").write_text(json.dumps(SEEN))
