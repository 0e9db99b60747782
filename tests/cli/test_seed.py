"""``catalog seed``: rows, passwords and refusals."""

import re

import pytest

from catalog.auth.seed_data import email_of, username_of
from catalog.products.seed_data import CHUNK_ROWS
from tests.cli.commands import CommandLine
from tests.products.seed_samples import samples, times_of
from tests.support import PASSWORD, Caller


async def count_of(catalog: CommandLine, table: str) -> int:
    ((count,),) = await catalog.query(f"SELECT COUNT(*) FROM {table}")  # noqa: S608 (ours)
    return int(count)


class TestRows:
    async def test_command_adds_the_requested_numbers(
        self, catalog: CommandLine, anyone: Caller
    ) -> None:
        products = CHUNK_ROWS + 500

        output = await catalog.output_of("seed", "--users=7", f"--products={products}")

        assert re.fullmatch(
            rf"Added {products:,} products and 7 of 7 users in [\d.]+ s: [\d,]+ rows/s\.\n", output
        )
        assert await count_of(catalog, "products") == products
        assert await count_of(catalog, "users") == 7
        page = (await anyone.get("/api/products?limit=1000")).json
        assert len(page["products"]) == 1000
        assert {product["version"] for product in page["products"]} == {1}

    async def test_rows_are_the_same_on_every_engine(
        self, catalog: CommandLine, anyone: Caller
    ) -> None:
        await catalog.output_of("seed", "--users=10", "--products=300", "--random-seed=7")

        made = samples(300, seed=7)
        read = (await anyone.get("/api/products?limit=1000")).json["products"][::-1]
        users = dict(await catalog.query("SELECT id, username FROM users"))
        assert [
            (product["name"], product["description"], product["price"]) for product in read
        ] == [(sample.name, sample.description, sample.price) for sample in made]
        assert [users[product["user_id"]] for product in read] == [
            username_of(sample.owner_id) for sample in made
        ]
        times = [each.strftime("%Y-%m-%dT%H:%M:%S.%fZ") for each in times_of(made)]
        assert [product["created_at"] for product in read] == times
        assert [product["updated_at"] for product in read] == times

    async def test_second_run_adds_products_of_the_same_users(self, catalog: CommandLine) -> None:
        await catalog.output_of("seed", "--users=5", "--products=20")
        again = await catalog.output_of("seed", "--users=5", "--products=20")
        more = await catalog.output_of("seed", "--users=8", "--products=0")

        assert again.startswith("Added 20 products and 0 of 5 users in ")
        assert more.startswith("Added 0 products and 3 of 8 users in ")
        names = await catalog.query("SELECT username FROM users ORDER BY id")
        assert names == [(username_of(number),) for number in range(1, 9)]
        assert await count_of(catalog, "products") == 40
        assert await count_of(catalog, "(SELECT DISTINCT created_at FROM products) times") == 20

    async def test_more_users_than_a_transaction_holds_are_added(
        self, catalog: CommandLine
    ) -> None:
        users = CHUNK_ROWS + 3

        await catalog.output_of("seed", f"--users={users}", "--products=0")

        assert await count_of(catalog, "users") == users


class TestLogIn:
    @pytest.mark.parametrize("guess", ["", "password", "!", "A" * 43])
    async def test_account_without_a_password_cannot_log_in(
        self, catalog: CommandLine, anyone: Caller, guess: str
    ) -> None:
        await catalog.output_of("seed", "--users=1", "--products=0")

        assert (await anyone.log_in(username_of(1), guess)).status_code == 401

    async def test_account_with_a_password_can_log_in(
        self, catalog: CommandLine, anyone: Caller
    ) -> None:
        await catalog.output_of("seed", "--users=10", "--products=0", f"--password={PASSWORD}")

        for login in (username_of(1), username_of(10), email_of(10)):
            answer = await anyone.log_in(login)
            assert answer.status_code == 200
            assert answer.json["user"]["role"] == "user"

    async def test_later_password_is_set_only_where_none_exists(
        self, catalog: CommandLine, anyone: Caller
    ) -> None:
        await catalog.output_of("seed", "--users=1", "--products=0", "--password=the first one")
        await catalog.output_of("seed", "--users=2", "--products=0")
        await catalog.output_of("seed", "--users=3", "--products=0", f"--password={PASSWORD}")

        assert (await anyone.log_in(username_of(1), PASSWORD)).status_code == 401
        assert (await anyone.log_in(username_of(1), "the first one")).status_code == 200
        assert (await anyone.log_in(username_of(2), PASSWORD)).status_code == 200
        assert (await anyone.log_in(username_of(3), PASSWORD)).status_code == 200


class TestRefusal:
    async def test_existing_account_with_a_sample_name_is_left_alone(
        self, catalog: CommandLine, anyone: Caller
    ) -> None:
        await anyone.sign_up(username_of(2), email="someone@example.com")

        faults = await catalog.faults_of("seed", "--users=3", f"--password={PASSWORD}")

        assert faults == [
            "The service cannot run: "
            f"The username {username_of(2)!r} of a sample account belongs to another account."
        ]
        assert await count_of(catalog, "users") == 1
        assert await count_of(catalog, "products") == 0

    async def test_taken_address_is_a_conflict(self, catalog: CommandLine, anyone: Caller) -> None:
        await anyone.sign_up("someone", email=email_of(2))

        (fault,) = await catalog.faults_of("seed", "--users=3")

        assert fault.startswith("The request conflicts with the current state: ")
        assert await count_of(catalog, "users") == 1

    async def test_database_without_tables_is_reported_with_the_remedy(
        self, fresh: CommandLine
    ) -> None:
        assert await fresh.faults_of("seed") == [
            "The service cannot run: The database has no tables yet; run: catalog migrate."
        ]

    @pytest.mark.parametrize("password", ["s3kr1t", "s3kr1t" * 30])
    async def test_password_that_sign_up_would_refuse_is_refused(
        self, nowhere: CommandLine, password: str
    ) -> None:
        (fault,) = await nowhere.faults_of("seed", f"--password={password}")

        assert fault.endswith(": A password must have 8 to 128 characters.")
        assert "s3kr1t" not in fault

    async def test_common_password_is_refused_in_production(self, nowhere: CommandLine) -> None:
        (fault,) = await nowhere.faults_of("seed", "--password=Football", CATALOG_ENV="production")

        assert fault.endswith(": A password must not be one of the 3,000 most common passwords.")
