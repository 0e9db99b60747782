"""Ten times as many clients as at the peak, and the time until answers are normal again."""

import asyncio
import time

from tests.load.contestants import Contestant
from tests.load.report import Overload
from tests.load.workloads.pages import random_pages_of
from tests.load.workloads.turns import PEAK_CONNECTIONS, Turns, tell

OVERLOAD = 10
RECOVERY_TIMEOUT_SECONDS = 30


async def overload(turns: Turns) -> None:
    """Request random pages by too many clients, which wait after a refusal or do not."""
    slow = turns.far_behind("random")
    names = [name for name in turns.direct if name not in slow]
    for number in range(1, turns.options.rounds + 1):
        for name in names:
            contestant = turns.contestants[name]
            script = random_pages_of(turns, contestant)
            await turns.warm_up(contestant, script)
            for obedient in (True, False):
                calm = max(_seconds_of(contestant, script.path) or 1 for _ in range(20))
                peak = await turns.turn(contestant, script, PEAK_CONNECTIONS)
                asked = script.obedient() if obedient else script
                measured = await turns.flood(contestant, asked, OVERLOAD * PEAK_CONNECTIONS)
                recovery = await _recovery(contestant, script.path, calm)
                await contestant.quiet()
                tell(f"overload, round {number}", contestant, measured)
                if peak and measured and peak.rate:
                    turns.results.overloads.append(
                        Overload(name, obedient, peak.rate, measured, recovery)
                    )


async def _recovery(contestant: Contestant, path: str, calm: float) -> float | None:
    """Return the seconds until three normal latencies in a row; None after a time-out."""
    began = time.monotonic()
    first, good = began, 0
    while time.monotonic() - began < RECOVERY_TIMEOUT_SECONDS:
        asked = time.monotonic()
        seconds = _seconds_of(contestant, path)
        if seconds is not None and seconds <= max(2 * calm, 0.02):
            first = first if good else asked
            good += 1
            if good == 3:
                return first - began
        else:
            good = 0
        await asyncio.sleep(0.05)
    return None


def _seconds_of(contestant: Contestant, path: str) -> float | None:
    """Return the latency of a request in seconds; None if it fails."""
    began = time.monotonic()
    try:
        contestant.ask(path)
    except OSError:
        return None
    return time.monotonic() - began
