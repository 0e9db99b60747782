"""Generators and linters of OpenAPI documents: Node.js and its packages, and one of Python."""

import asyncio
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
JOURNEYS = HERE / "journeys"
NODE_MODULES = HERE / "node_modules"
NODE = Path(sys.executable).with_name("node")
PYTHON_GENERATOR = Path(sys.executable).with_name("openapi-python-client")

TOOL_SECONDS = 100.0
"""Time-out of one tool; each takes a second or two on an idle machine."""


def missing_tools() -> str:
    """Return what ``./build.sh clients`` would install; empty if all is there."""
    lacking = [path.name for path in (NODE, PYTHON_GENERATOR, NODE_MODULES) if not path.exists()]
    return ", ".join(lacking)


async def run(folder: Path, *command: str | Path, **environment: str) -> tuple[int, str]:
    """Run a program, and return its exit code and output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", "FORCE_COLOR": "0", **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(TOOL_SECONDS):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def run_node(folder: Path, script: str, *arguments: str | Path, **environment: str) -> str:
    """Run a script of a package, and return its output.

    Args:
        folder: the working directory, whose ``node_modules`` has the packages.
        script: the path of the script in there.
        *arguments: its arguments.
        **environment: further variables.

    Raises:
        AssertionError: it failed.
    """
    path = folder / "node_modules" / script
    code, output = await run(folder, NODE, path, *arguments, **environment)
    assert code == 0, output
    return output
