"""Policy for new passwords."""

from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from itertools import islice

from catalog.auth.models import MAX_PASSWORD
from catalog.auth.normalization import MAX_PASSWORD_CODE_POINTS, check_marks, composed, fold

COMMON_PASSWORDS = 3000
"""Number of most common passwords that are refused (OWASP ASVS 5.0, 6.2.4)."""

SERVICE_NAME = "catalog"
"""Name of the service, which users may choose as their password."""


def check_choice(
    password: str, *, min_length: int, refuse_guessable: bool, username: str, email: str
) -> None:
    """Check a password against the policy, which has no rules on character classes.

    Args:
        password: the password as submitted.
        min_length: the minimum number of characters.
        refuse_guessable: whether to refuse common passwords, and those that the account suggests
            (OWASP ASVS 5.0, 6.2.4 and 6.2.11).
        username: the account's username.
        email: the account's e-mail address.

    Raises:
        ValueError: the policy forbids the password; the message never repeats it.
    """
    if (
        len(password) > MAX_PASSWORD_CODE_POINTS
        or not min_length <= len(composed(password)) <= MAX_PASSWORD
    ):
        raise ValueError(f"must have {min_length} to {MAX_PASSWORD} characters")
    check_marks(password)
    if not refuse_guessable:
        return
    if composed(password).casefold() in common_passwords(min_length):
        raise ValueError(f"must not be one of the {COMMON_PASSWORDS:,} most common passwords")
    suggested = (username, email, email.rpartition("@")[0], SERVICE_NAME)
    if _core(password) in {_core(word) for word in suggested}:
        raise ValueError(
            "must not be the username, the e-mail address or the name of the service, "
            "not even with digits or punctuation around it"
        )


def _core(text: str) -> str:
    """Return the folded text without non-letters at its ends, unless it has no letters."""
    folded = fold(text)
    return folded.strip("".join(each for each in folded if not each.isalpha())) or folded


@cache
def common_passwords(min_length: int) -> frozenset[str]:
    """Return the most common passwords of at least the given length, in lower case.

    Loading them takes 20 ms.
    """
    # By path, because importing the package builds dictionaries of this and all its other lists
    # and keeps them: 13 MB in each worker.
    package = find_spec("zxcvbn")
    folders = package.submodule_search_locations if package else None
    spec = PathFinder.find_spec("frequency_lists", folders)
    if spec is None or spec.loader is None:
        raise ImportError("zxcvbn has no frequency_lists")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    by_frequency: list[str] = module.FREQUENCY_LISTS["passwords"]
    long_enough = (each for each in by_frequency if len(each) >= min_length)
    return frozenset(islice(long_enough, COMMON_PASSWORDS))
