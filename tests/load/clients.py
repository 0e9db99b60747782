"""Client programs, and the resources that they need on this machine."""

import asyncio
import resource
import shutil
from pathlib import Path

import click

PROGRAMS = ("wrk", "h2load")


def threads_for(connections: int) -> int:
    """Return a client's number of threads; more would take CPU from the measured server."""
    return 1 if connections <= 512 else 2


async def output_of(*command: str) -> str:
    """Run a client program to its end; return its output."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await process.communicate()
    finally:
        # Ctrl-C must end the load, too, and not only the wait for it.
        if process.returncode is None:
            process.kill()
    return output.decode()


def require(connections: int) -> None:
    """Check that client programs are installed and enough files can be opened.

    Raises:
        click.ClickException: a program is missing, or the limit of open files is too low.
    """
    for program in PROGRAMS:
        if shutil.which(program) is None:
            raise click.ClickException(f"{program} is not installed.")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Servers inherit the raised limit, and need as many.
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # On a cache miss nginx opens two connections per client.
    if hard != resource.RLIM_INFINITY and 2 * connections + 200 > hard:
        raise click.ClickException(
            f"A process may open {hard} files and {connections} connections take more; see ulimit."
        )
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if 2 * connections > last - first:
        raise click.ClickException(f"There are {last - first} local ports, which is too few.")
