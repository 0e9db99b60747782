"""Programs that ask for things, and what they need of this machine."""

import asyncio
import resource
import shutil
from pathlib import Path

import click

PROGRAMS = ("wrk", "h2load")


def threads_for(connections: int) -> int:
    """How many threads of a client it takes; more would take the cores from who is measured."""
    return 1 if connections <= 512 else 2


async def output_of(*command: str) -> str:
    """Run a client to its end, and return what it has printed."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await process.communicate()
    finally:
        # Ctrl-C ends the load too, and not only the wait for it.
        if process.returncode is None:
            process.kill()
    return output.decode()


def require(connections: int) -> None:
    """See that the clients are there, and that so many connections can be opened at once.

    Raises:
        click.ClickException: they are not, or they cannot.
    """
    for program in PROGRAMS:
        if shutil.which(program) is None:
            raise click.ClickException(f"{program} is not installed.")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Handed on to whatever is started here: servers need as many.
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # nginx opens two for a client whose page it does not have.
    if hard != resource.RLIM_INFINITY and 2 * connections + 200 > hard:
        raise click.ClickException(
            f"A process may open {hard} files and {connections} connections take more; see ulimit."
        )
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if 2 * connections > last - first:
        raise click.ClickException(f"There are {last - first} local ports, which is too few.")
