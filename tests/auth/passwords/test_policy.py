"""The rules for new passwords."""

import sys
from collections.abc import AsyncIterator

import pytest
from quart import Quart

from catalog.app import create_app
from catalog.auth.passwords.policy import COMMON_PASSWORDS, check_choice, common_passwords
from catalog.settings import Settings
from tests.support import PASSWORD, Caller, fields_of, problem_of

# Common first guesses, and guesses from an account: ada, ada.lovelace@example.com.
COMMON = ["password", "12345678", "iloveyou", "trustno1", "1q2w3e4r", "PassWord1"]
SUGGESTED = {
    "name-and-year": "ada-1815",
    "name-in-capitals": "ADA!!!!!",
    "name-between": "123ada456",
    "wide-name": "\uff41\uff44\uff4112345",
    "address": "ada.lovelace@example.com",
    "address-in-capitals": "Ada.Lovelace@EXAMPLE.com",
    "local-part": "ada.lovelace",
    "local-part-and-digits": "ada.lovelace99",
    "service": "catalog1",
    "service-and-signs": "*Catalog*",
}
FINE = ["adalovelace", "correct horse", "ada lovelace counts", "catalogue", "x" * 8, "83716402957"]

# Four code points that compose to one, as often as the longest password has characters.
LONGEST = "\u03c9\u0314\u0342\u0345" * 128


class TestChoice:
    @pytest.mark.parametrize("password", ["", "x" * 7, "e\u0301" * 7, "x" * 129, "e\u0301" * 129])
    def test_password_outside_the_length_bounds_is_always_refused(self, password: str) -> None:
        for refuse_guessable in (True, False):
            with pytest.raises(ValueError, match=r"^must have 8 to 128 characters$"):
                check(password, refuse_guessable=refuse_guessable)

    @pytest.mark.parametrize("password", ["x" * 12, "e\u0301" * 128, LONGEST])
    def test_password_at_the_length_bounds_is_accepted(self, password: str) -> None:
        check(password, min_length=12)

    @pytest.mark.parametrize("password", COMMON)
    def test_common_password_is_refused(self, password: str) -> None:
        with pytest.raises(ValueError, match="3,000 most common"):
            check(password)

    @pytest.mark.parametrize("password", SUGGESTED.values(), ids=SUGGESTED)
    def test_password_derived_from_the_account_is_refused(self, password: str) -> None:
        with pytest.raises(ValueError, match=r"^must not be the username"):
            check(password)

    @pytest.mark.parametrize("password", FINE)
    def test_other_password_is_accepted(self, password: str) -> None:
        check(password)

    def test_username_without_letters_blocks_only_itself(self) -> None:
        with pytest.raises(ValueError, match=r"^must not be the username"):
            check("8675309-8675309", username="8675309-8675309")
        check("90210-90210-90210", username="8675309-8675309")

    @pytest.mark.parametrize("password", [*COMMON, *SUGGESTED.values()])
    def test_guessable_password_is_accepted_if_the_setting_allows_it(self, password: str) -> None:
        check(password, refuse_guessable=False)


def check(
    password: str, *, min_length: int = 8, refuse_guessable: bool = True, username: str = "ada"
) -> None:
    check_choice(
        password,
        min_length=min_length,
        refuse_guessable=refuse_guessable,
        username=username,
        email="ada.lovelace@example.com",
    )


class TestCommonPasswords:
    def test_list_holds_the_most_common_of_sufficient_length(self) -> None:
        common = common_passwords(8)

        assert len(common) == COMMON_PASSWORDS == 3000
        assert all(len(each) >= 8 and each == each.casefold() for each in common)
        assert "123456" not in common
        # For a longer minimum the list is filled up with rarer ones.
        assert common_passwords(9) - common

    def test_list_is_shorter_for_a_long_minimum(self) -> None:
        assert 100 < len(common_passwords(12)) < 1000

    def test_word_list_module_is_not_kept_in_memory(self) -> None:
        common_passwords(8)

        assert not [name for name in sys.modules if name.startswith("zxcvbn")]


class TestChoiceOverHttp:
    @pytest.fixture
    async def production(self, settings: Settings) -> AsyncIterator[Quart]:
        app = create_app(settings.model_copy(update={"env": "production"}))
        async with app.test_app():
            yield app

    async def test_sign_up_refuses_a_guessable_password(self, production: Quart) -> None:
        anyone = Caller(production)

        for password in ("Baseball", "ada-1815", "ada@example.com", "catalog!"):
            answer = await anyone.sign_up("ada", password=password)

            assert problem_of(answer) == (422, "invalid")
            assert fields_of(answer) == ["/password"]
            assert password not in answer.body.decode()
        assert (await anyone.sign_up("ada")).status_code == 201

    async def test_password_change_refuses_a_guessable_password(self, production: Quart) -> None:
        ada = await Caller.signed_up(production, "ada")

        for password in ("Baseball", "ada-1815", "short"):
            change = {"current_password": PASSWORD, "new_password": password}
            answer = await ada.post("/api/auth/password", json=change)

            assert problem_of(answer) == (422, "invalid")
            assert fields_of(answer) == ["/new_password"]
        assert (await ada.log_in("ada")).status_code == 200

    async def test_guessable_password_is_accepted_in_development(self, anyone: Caller) -> None:
        assert (await anyone.sign_up("ada", password="baseball")).status_code == 201
