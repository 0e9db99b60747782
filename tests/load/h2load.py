"""Load by ``h2load``: one page over TLS, with concurrent streams on each connection (HTTP/2)."""

import re
from dataclasses import dataclass
from pathlib import Path

import click

from tests.load.clients import output_of, threads_for
from tests.load.contestants import Contestant
from tests.load.measured import Measured, Meter
from tests.load.sign_in import percentile

STREAMS = 10
"""Concurrent requests per connection."""


@dataclass(frozen=True)
class Streams:
    """Repeated requests of one page.

    Attributes:
        path: the URL's path and query.
    """

    path: str

    async def put_on(
        self, contestant: Contestant, *, connections: int, seconds: int, folder: Path
    ) -> Measured:
        """Generate load, see ``Traffic``; includes connecting and TLS handshakes."""
        log = folder / "h2load.log"
        # h2load appends to its log.
        log.unlink(missing_ok=True)
        meter = Meter(contestant)
        output = await output_of(
            *("h2load", f"-t{threads_for(connections)}", f"-c{connections}", f"-m{STREAMS}"),
            *(f"-D{seconds}", f"--log-file={log}", contestant.tls_url + self.path),
        )
        found = re.search(r"(\d+) failed, \d+ errored, \d+ timeout", output)
        if not found or not log.exists():
            raise click.ClickException(f"h2load printed something else:\n{output}")
        answers = [line.split() for line in log.read_text().splitlines()]
        good = [int(time) / 1000 for _, status, time in answers if status.startswith("2")]
        p99 = percentile(good or [0.0], 99)
        own, machine = meter.a_request(max(len(answers), 1))
        return Measured(
            requests=len(answers),
            seconds=seconds,
            cpu_us=own,
            machine_us=machine,
            p50=percentile(good or [0.0], 50),
            p99=p99,
            accepted_p99=p99,
            refused=len(answers) - len(good),
            failed=int(found.group(1)),
        )
