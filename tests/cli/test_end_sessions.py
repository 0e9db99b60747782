"""``catalog end-sessions``."""

import asyncio

import pytest

from tests.cli.commands import CommandLine
from tests.support import Caller, problem_of

SOON = 5.0
"""Seconds; the promise is two, and a busy machine may take longer."""


async def until_signed_out(caller: Caller) -> None:
    async with asyncio.timeout(SOON):
        while (await caller.get("/api/products/my")).status_code == 200:
            await asyncio.sleep(0.05)
    assert problem_of(await caller.get("/api/products/my")) == (401, "session-ended")


async def test_account_is_logged_out_of_the_running_service(
    catalog: CommandLine, ada: Caller, bob: Caller
) -> None:
    await Caller.logged_in(ada.app, "ada")

    assert await catalog.output_of("end-sessions", "ada") == "Ended sessions: 2.\n"

    await until_signed_out(ada)
    assert (await bob.get("/api/products/my")).status_code == 200


async def test_all_accounts_are_logged_out(catalog: CommandLine, ada: Caller, bob: Caller) -> None:
    assert await catalog.output_of("end-sessions", "--all") == "Ended sessions: 2.\n"
    assert await catalog.output_of("end-sessions", "--all") == "Ended sessions: 0.\n"

    await until_signed_out(ada)
    await until_signed_out(bob)


async def test_unknown_account_is_reported(catalog: CommandLine) -> None:
    faults = await catalog.faults_of("end-sessions", "nobody@example.com")

    assert faults == ["There is no such resource: There is no account 'nobody@example.com'."]


@pytest.mark.parametrize("arguments", [(), ("ada", "--all")], ids=["neither", "both"])
async def test_neither_or_both_of_account_and_all_is_a_usage_error(
    nowhere: CommandLine, arguments: tuple[str, ...]
) -> None:
    result = await nowhere.run("end-sessions", *arguments)

    assert result.exit_code == 2
    assert "Name an account, or use --all." in result.stderr
