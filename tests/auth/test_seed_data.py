"""Generated accounts: valid and unique."""

from catalog.auth.normalization import checked_email, checked_username, fold
from catalog.auth.seed_data import email_of, username_of


def test_each_account_is_valid_for_sign_up() -> None:
    for number in range(1, 3_000):
        checked_username(username_of(number))
        checked_email(email_of(number))


def test_accounts_are_unique() -> None:
    numbers = range(1, 20_000)

    assert len({fold(username_of(number)) for number in numbers}) == len(numbers)
    assert len({fold(email_of(number)) for number in numbers}) == len(numbers)
