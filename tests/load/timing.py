"""Whether the time of a refused log-in tells which accounts exist.

Sends wrong passwords for accounts that there are and for names that there are not, in random
order on one connection, and computes how well the time tells the two apart: the chance that a
known name took longer than an unknown one (the area under the ROC curve, by the rank sum of Mann
and Whitney). 0.5 is not at all. Needs a running service with ``CATALOG_LOGIN_LIMIT=off`` and:

    catalog seed --users 300 --products 0 --password "correct horse battery staple"
    python -m tests.load.timing --url http://127.0.0.1:8000 --password "correct horse …"
"""

import asyncio
import random
import statistics
import time

import click

from catalog.auth.seed_data import username_of
from tests.load.sign_in import login_of
from tests.server.service import Connection

# Sample accounts of these numbers are made by nobody.
FIRST_UNKNOWN = 50_000_001
WARM_UP = 10


@click.command()
@click.option("--url", required=True, help="Where the service runs: http://127.0.0.1:8000.")
@click.option("--password", required=True, help="Of the sample accounts, to see that they exist.")
@click.option("--count", default=300, show_default=True, help="Guesses of each kind.")
def main(url: str, password: str, count: int) -> None:
    """Measure and print the area under the curve, and both medians."""
    known, unknown = asyncio.run(measure(url, password, count))
    # Without any difference 95 of 100 runs lie in this range.
    error = 1.96 * ((2 * count + 1) / (12 * count * count)) ** 0.5
    click.echo(f"AUC {area_under_curve(known, unknown):.3f} (0.5 ± {error:.3f} by chance alone)")
    for name, times in (("known", known), ("unknown", unknown)):
        click.echo(f"{name}: {len(times)} guesses, median {statistics.median(times):.2f} ms")


async def measure(url: str, password: str, count: int) -> tuple[list[float], list[float]]:
    """Guess once for each of so many known and unknown names; milliseconds of each answer."""
    connection = await Connection.open(url)
    first, last = username_of(1), username_of(count)
    for name in (first, last):
        await connection.send(login_of(name, password))
        if (await connection.answer()).status != 200:
            raise click.ClickException(f"{name} cannot log in; seed the sample accounts first.")
    numbers = [*range(1, count + 1), *range(FIRST_UNKNOWN, FIRST_UNKNOWN + count)]
    random.shuffle(numbers)
    # The first answers pay for what a worker has to make once.
    numbers = [*range(FIRST_UNKNOWN + count, FIRST_UNKNOWN + count + WARM_UP), *numbers]
    known: list[float] = []
    unknown: list[float] = []
    for turn, number in enumerate(numbers):
        guess = login_of(username_of(number), "not the password of anyone")
        began = time.perf_counter()
        await connection.send(guess)
        answer = await connection.answer()
        milliseconds = (time.perf_counter() - began) * 1000
        if answer.status != 401:
            raise click.ClickException(f"A guess was answered with {answer.status}.")
        if turn >= WARM_UP:
            (known if number <= count else unknown).append(milliseconds)
    await connection.close()
    return known, unknown


def area_under_curve(ones: list[float], others: list[float]) -> float:
    """The chance that one of the first exceeds one of the second; equal ones count half."""
    wins = sum((one > other) + (one == other) / 2 for one in ones for other in others)
    return wins / (len(ones) * len(others))


if __name__ == "__main__":
    main()
