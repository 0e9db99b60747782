"""The service against its OpenAPI document (schemathesis), as one of two users.

Every response is documented, and no data of the other user is read or changed.
"""

import asyncio
import json
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.figures import Figures
from tests.faults.scale import Scale
from tests.server.conformance import (
    ENDING,
    PHASES,
    ROOT,
    bearing,
    options_for,
    put_to_the_test,
)
from tests.server.service import Catalog
from tests.support import PASSWORD

pytestmark = pytest.mark.faults

PRODUCTS = 5
SLICE = 200
"""Cases per operation between two checks of the clock."""
FULL_SECONDS = 660.0
"""Time after which no slice is started: generating cases dominates, at 10 to 40 ms each."""

# Three processes make good use of two cores, the service's two workers included.
GROUPS = {
    "products": ("--include-path-regex", "^/api/products"),
    "others": (
        *("--exclude-path-regex", "^/api/products"),
        *options_for("--exclude-operation-id", ENDING),
    ),
    "ending": tuple(options_for("--include-operation-id", ENDING)),
}
"""Groups of operations that are tested concurrently, each with its own token."""


@dataclass(frozen=True)
class Account:
    """An account logged in over HTTP.

    Attributes:
        secrets: its e-mail address and its tokens.
    """

    client: httpx.AsyncClient
    access_token: str
    refresh_token: str
    secrets: tuple[str, ...]

    @classmethod
    async def sign_up(cls, client: httpx.AsyncClient, name: str, email: str) -> "Account":
        fields = {"username": name, "email": email, "password": PASSWORD}
        answer = await client.post("/api/auth/signup", json=fields)
        assert answer.status_code == 201, answer.text
        tokens = answer.json()
        access_token, refresh_token = tokens["access_token"], tokens["refresh_token"]
        return cls(client, access_token, refresh_token, (email, access_token, refresh_token))

    async def read(self, path: str) -> Any:
        """Read a resource of the account."""
        headers = {"Authorization": f"Bearer {self.access_token}"}
        answer = await self.client.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def create(self, name: str) -> None:
        headers = {"Authorization": f"Bearer {self.access_token}"}
        fields = {"name": name, "price": 9.5}
        answer = await self.client.post("/api/products", json=fields, headers=headers)
        assert answer.status_code == 201, answer.text

    async def all(self) -> dict[str, Any]:
        """Read all data of the account."""
        return {
            "account": await self.read("/api/auth/me"),
            "sessions": (await self.read("/api/auth/sessions"))["sessions"],
            "products": (await self.read("/api/products/my"))["products"],
        }


async def with_everything(client: httpx.AsyncClient) -> Account:
    """Create an account with a secret e-mail address, products and two sessions."""
    bob = await Account.sign_up(client, "bob", f"bob-{secrets.token_hex(16)}@example.com")
    for number in range(PRODUCTS):
        await bob.create(f"Bob's {number}")
    answer = await client.post("/api/auth/login", json={"username": "bob", "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    tokens = answer.json()
    return replace(bob, secrets=(*bob.secrets, tokens["access_token"], tokens["refresh_token"]))


def describe(folder: Path, bob: Account, owned: dict[str, Any], *texts: str) -> dict[str, str]:
    """Save bob's private data; return the environment of ``tests.faults.privacy``."""
    ids = {
        "user_id": [owned["account"]["id"]],
        "product_id": [each["id"] for each in owned["products"]],
        "session_id": [each["id"] for each in owned["sessions"]],
    }
    private = folder / "private.json"
    private.write_text(json.dumps({"texts": [*bob.secrets, *texts], "ids": ids}))
    seen = folder / "seen"
    seen.mkdir()
    return {
        "SCHEMATHESIS_HOOKS": "tests.faults.privacy",
        "PYTHONPATH": str(ROOT),
        "CATALOG_TEST_PRIVATE": str(private),
        "CATALOG_TEST_SEEN": str(seen),
    }


def counted(environment: dict[str, str], name: str) -> int:
    """Return the sum of a count over all runs."""
    files = Path(environment["CATALOG_TEST_SEEN"]).glob("*.json")
    return sum(json.loads(file.read_text())[name] for file in files)


@dataclass(frozen=True)
class Outcome:
    """Outcome of testing a group.

    Attributes:
        cases: generated cases for each operation.
        failures: output of each failed run.
    """

    cases: int
    failures: list[str]


async def put_group_to_the_test(
    folder: Path, url: str, *options: str, cases: int, until: float, **environment: str
) -> Outcome:
    """Test a group in slices until a deadline; the first slice runs in any case."""
    done, failures = 0, []
    phases: tuple[str, ...] = PHASES
    while done < cases and (done == 0 or time.monotonic() < until):
        count = min(SLICE, cases - done)
        code, output = await put_to_the_test(
            folder, url, *options, examples=count, phases=phases, **environment
        )
        done += count
        failures += [output] if code else []
        # The other phases are deterministic.
        phases = ("fuzzing", "stateful")
    return Outcome(done, failures)


class TestApi:
    async def test_responses_are_documented_and_isolate_users(
        self, catalog: Catalog, tmp_path: Path, scale: Scale, figures: Figures
    ) -> None:
        environment = {"CATALOG_ACCESS_TOKEN_TTL": "86400"}
        async with (
            catalog.start("--workers=2", **environment) as service,
            httpx.AsyncClient(base_url=(await service.serving()).url) as client,
        ):
            bob = await with_everything(client)
            before = await bob.all()
            ada = await Account.sign_up(client, "ada", "ada@example.com")
            watched = describe(tmp_path, bob, before)
            fresh = {
                **watched,
                "SCHEMATHESIS_HOOKS": "tests.faults.privacy_fresh",
                "CATALOG_TEST_URL": service.url,
                "CATALOG_TEST_PASSWORD": PASSWORD,
            }
            tokens = {
                "products": bearing(ada.access_token),
                "others": bearing(ada.access_token),
                "ending": (),
            }
            began = time.monotonic()

            outcomes = await asyncio.gather(
                *(
                    put_group_to_the_test(
                        tmp_path,
                        service.url,
                        *(*tokens[group], *options),
                        cases=scale.cases,
                        until=began + FULL_SECONDS,
                        **(fresh if group == "ending" else watched),
                    )
                    for group, options in GROUPS.items()
                )
            )

            seconds = time.monotonic() - began
            for group, outcome in zip(GROUPS, outcomes, strict=True):
                wanted = f"{scale.cases} within {FULL_SECONDS:.0f} s"
                figures.add(
                    "conformance", f"cases an operation, {group}", outcome.cases, limit=wanted
                )
            answers = counted(watched, "answers")
            figures.add("conformance", "answers as announced", answers)
            figures.add("conformance", "aimed at another user's", counted(watched, "aimed"))
            figures.add("conformance", "answers a second", answers / seconds)
            failures = [text for outcome in outcomes for text in outcome.failures]
            assert not failures, "\n\n".join(failures)
            assert await bob.all() == before
            assert (await ada.read("/api/auth/me"))["username"] == "ada"
            assert not service.logged("request_failed"), "the log has the tracebacks"

    async def test_leak_and_change_of_private_data_are_detected(
        self, catalog: Catalog, tmp_path: Path
    ) -> None:
        async with (
            catalog.start() as service,
            httpx.AsyncClient(base_url=(await service.serving()).url) as client,
        ):
            bob = await with_everything(client)
            before = await bob.all()
            # Products are public, so declaring a name private produces a leak.
            environment = describe(tmp_path, bob, before, "Bob's 3")

            code, output = await put_to_the_test(
                tmp_path,
                service.url,
                *("--include-operation-id", "list_products"),
                examples=1,
                **environment,
            )

            await bob.create("Bob's last")
            after = await bob.all()

        assert after != before
        assert code != 0
        assert "The answer holds what is another account's" in output
