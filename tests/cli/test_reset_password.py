"""``catalog reset-password``."""

import pytest

from tests.cli.commands import CommandLine
from tests.support import PASSWORD, Caller, problem_of


def password_in(output: str) -> str:
    """Extract the shown password from a command's output."""
    return output.splitlines()[1].removeprefix("Password, shown only now: ")


@pytest.mark.usefixtures("ada")
@pytest.mark.parametrize("login", ["ada", "ADA@example.com"])
async def test_new_password_logs_in_and_the_old_one_does_not(
    catalog: CommandLine, anyone: Caller, login: str
) -> None:
    output = await catalog.output_of("reset-password", login)

    assert output.startswith(
        "Reset the password of 'ada', ended its sessions: 1, and revoked its API keys: 0.\n"
    )
    assert (await anyone.log_in("ada", password_in(output))).status_code == 200
    assert problem_of(await anyone.log_in("ada", PASSWORD)) == (401, "credentials-wrong")


async def test_existing_sessions_end(catalog: CommandLine, ada: Caller, bob: Caller) -> None:
    await catalog.output_of("reset-password", "ada")

    async def refresh(caller: Caller) -> int:
        answer = await caller.post("/api/auth/refresh", token=caller.refresh_token)
        return answer.status_code

    assert (await refresh(ada), await refresh(bob)) == (401, 200)


@pytest.mark.usefixtures("ada")
async def test_each_reset_generates_another_password(catalog: CommandLine) -> None:
    first = password_in(await catalog.output_of("reset-password", "ada"))
    second = password_in(await catalog.output_of("reset-password", "ada"))

    assert first != second
    assert min(len(first), len(second)) >= 20


async def test_unknown_account_is_reported(catalog: CommandLine) -> None:
    faults = await catalog.faults_of("reset-password", "nobody")

    assert faults == ["There is no such resource: There is no account 'nobody'."]


async def test_database_without_tables_is_reported_with_the_remedy(fresh: CommandLine) -> None:
    (fault,) = await fresh.faults_of("reset-password", "ada")

    assert "catalog migrate" in fault
