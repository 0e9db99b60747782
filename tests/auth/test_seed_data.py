"""Generated accounts: valid and unique."""

from hashlib import sha256

from catalog.auth.normalization import checked_email, checked_username, fold
from catalog.auth.seed_data import email_of, username_of

PINNED = "d51f91dc6ec85f8c643ac8262edd352607f11cac80c3116e505de300a14bcf3e"
"""The digest of the first accounts; it changes only with the names."""


def test_number_has_the_same_account_in_every_release() -> None:
    accounts = [(username_of(number), email_of(number)) for number in range(1, 2_000)]

    assert sha256(repr(accounts).encode()).hexdigest() == PINNED


def test_each_account_is_valid_for_sign_up() -> None:
    for number in range(1, 3_000):
        checked_username(username_of(number))
        checked_email(email_of(number))


def test_accounts_are_unique() -> None:
    numbers = range(1, 20_000)

    assert len({fold(username_of(number)) for number in numbers}) == len(numbers)
    assert len({fold(email_of(number)) for number in numbers}) == len(numbers)
