"""Seed accounts, for trials and benchmarks.

An account's number determines its data, everywhere and at any time, so that seeding a database
again finds the accounts of the last run.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth.models import Role, User
from catalog.auth.normalization import fold
from catalog.db.statements import affected_rows
from catalog.errors import OperatorError
from catalog.normal_forms import normalize

UNUSABLE_HASH = f"$argon2id$v=19$m=19456,t=2,p=1${'A' * 22}${'A' * 43}"
"""Hash of no known password: all zeros. Checking against it takes as long as for other accounts."""

FIRST_SIGN_UP = datetime(2023, 1, 1, tzinfo=UTC)
"""Creation time of the first account; the others follow within the year."""

_GIVEN = (
    *("ada", "amélie", "björn", "chloé", "dvořák", "elif", "françois", "grace", "hülya", "inês"),
    *("josé", "kateřina", "linus", "maría", "noël", "oğuz", "priya", "quentin", "renée", "sinéad"),
    *("tomáš", "ülkü", "vikram", "wanjiru", "xóchitl", "yusuf", "zoë"),
)
_FAMILY = (
    *("almeida", "bărbulescu", "chukwu", "díaz", "eriksson", "fernández", "gonçalves", "hernández"),
    *("ivanov", "jiménez", "kovács", "lefèvre", "müller", "nguyễn", "okafor", "peña", "quispe"),
    *("rossi", "sánchez", "türkmen", "ündar", "varga", "weiß", "ximénez", "yücel", "zając"),
)
_EASTERN = (
    *("さくら", "陽菜", "山田太郎", "王小明", "李娜", "김민준", "박서연", "Дмитрий", "Ελένη"),
    *("ירדן", "ليلى", "अनन्या"),
)


def username_of(number: int) -> str:
    """Return the username of a seed account, numbers from 1; one in ten is not Latin."""
    if number % 10 == 0:
        return f"{_EASTERN[number // 10 % len(_EASTERN)]}{number}"
    given = _GIVEN[number % len(_GIVEN)]
    return f"{given}.{_FAMILY[number // len(_GIVEN) % len(_FAMILY)]}{number}"


def email_of(number: int) -> str:
    """Return the e-mail address of a seed account, at a reserved domain (RFC 2606, section 3)."""
    name = username_of(number).partition(".")[0].rstrip("0123456789")
    latin = normalize("NFKD", name).encode("ascii", "ignore").decode()
    return f"{latin or 'reader'}.{number}@example.org"


async def make_accounts(
    session: AsyncSession, *, numbers: Iterable[int], password_hash: str | None
) -> tuple[list[int], int]:
    """Create the seed accounts of some numbers, unless they exist.

    Existing ones keep their password, or get the given one if they had none.

    Returns:
        their ids in the order of the numbers, and the number of new ones.

    Raises:
        OperatorError: a username belongs to an account that is no seed account.
    """
    numbers_by_key = {fold(username_of(number)): number for number in numbers}
    found = await _find(session, numbers_by_key)
    missing = [number for key, number in numbers_by_key.items() if key not in found]
    if missing:
        rows = [_row_of(number, password_hash or UNUSABLE_HASH) for number in missing]
        await session.execute(insert(User), rows)
    if password_hash and found:
        without = (User.id.in_(found.values()), User.password_hash == UNUSABLE_HASH)
        change = update(User).where(*without).values(password_hash=password_hash)
        await affected_rows(session, change)
    ids = await _find(session, numbers_by_key) if missing else found
    return [ids[key] for key in numbers_by_key], len(missing)


async def _find(session: AsyncSession, numbers_by_key: dict[str, int]) -> dict[str, int]:
    columns = (User.id, User.username_key, User.email_key, User.username)
    rows = await session.execute(select(*columns).where(User.username_key.in_(numbers_by_key)))
    ids = {}
    for user_id, key, email_key, username in rows:
        if email_key != fold(email_of(numbers_by_key[key])):
            raise OperatorError(
                f"The username {username!r} of a sample account belongs to another account."
            )
        ids[key] = user_id
    return ids


def _row_of(number: int, password_hash: str) -> dict[str, object]:
    username, email = username_of(number), email_of(number)
    return {
        "username": username,
        "username_key": fold(username),
        "email": email,
        "email_key": fold(email),
        "password_hash": password_hash,
        "role": Role.USER,
        "disabled": False,
        "created_at": FIRST_SIGN_UP + timedelta(minutes=number % (365 * 24 * 60)),
    }
