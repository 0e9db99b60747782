"""Run schemathesis, a property-based tester of OpenAPI documents, against the running service."""

import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import httpx

CONFIG = Path(__file__).parent.parent / "schemathesis.toml"
ROOT = Path(__file__).parent.parent.parent

PHASES = ("examples", "coverage", "fuzzing", "stateful")

# Operations that may end the session of their token, after which all others get only 401; so does a
# superseded refresh token that is used again. Each request of these has a token of its own
# (tests/server/fresh_tokens.py).
ENDING = (
    *("log_out", "log_out_everywhere", "end_session", "change_password", "delete_account"),
    *("change_user", "end_user_sessions", "refresh_token", "get_refreshed_token"),
)


def options_for(flag: str, values: Iterable[str]) -> list[str]:
    """Return the option once for each value."""
    return [each for value in values for each in (flag, value)]


def bearing(token: str) -> tuple[str, str]:
    """Return the options that send a token with every request."""
    return "--header", f"Authorization: Bearer {token}"


async def sign_in(url: str, username: str, password: str) -> dict[str, str]:
    """Log in, and return the response, which holds both tokens."""
    async with httpx.AsyncClient(base_url=url) as client:
        credentials = {"username": username, "password": password}
        answer = await client.post("/api/auth/login", json=credentials)
    tokens: dict[str, str] = answer.json()
    return tokens


async def put_to_the_test(
    folder: Path,
    url: str,
    *options: str,
    examples: str | int,
    phases: Iterable[str] = PHASES,
    **environment: str,
) -> tuple[int, str]:
    """Run schemathesis, and return its exit code and output.

    Args:
        folder: the working directory.
        url: the service's.
        options: further options of ``st run``.
        examples: requests for each operation in each phase that generates them.
        phases: a subset of ``PHASES``.
        environment: further variables, such as those of a module of hooks.
    """
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("st"),
        *("--config-file", CONFIG, "--no-color", "run", f"{url}/openapi.json"),
        *("--max-examples", str(examples)),
        *("--phases", ",".join(phases), "--continue-on-failure"),
        # Longer than the longest wait of a long poll for changes.
        *("--request-timeout", "40"),
        *options,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()
