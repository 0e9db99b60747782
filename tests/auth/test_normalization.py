"""Normalization and validation of usernames and e-mail addresses."""

import asyncio
import sys
import unicodedata
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice, product
from typing import Literal

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from catalog.auth import service
from catalog.auth.models import MAX_EMAIL, MAX_USERNAME, Role, User
from catalog.auth.normalization import checked_email, checked_username, fold
from catalog.auth.seed_data import username_of
from catalog.db.database import Database
from catalog.errors import DatabaseBusy, DuplicateValue, FieldError
from tests.support import Caller, fields_of, problem_of

# The groups are different names, so that all of them fit into one database.
ONE_NAME = {
    "case": ("ada", "ADA", "Ada", "aDa"),
    "width": ("bob", "\uff42\uff4f\uff42", "\uff22\uff2f\uff22", "\uff42Ob"),
    "form": ("andré", "andre\u0301", "ANDRE\u0301"),
    "order-of-accents": ("\u1eadnna", "a\u0323\u0302nna", "a\u0302\u0323nna", "\u1ea1\u0302nna"),
    "ligature": ("fiona", "\ufb01ona", "FIONA"),
    "ligature-of-three": ("steffi", "ste\ufb03", "\ufb06e\ufb03", "\ufb05e\ufb03"),
    "digraph": ("d\u017eon", "\u01c6on", "\u01c5on", "\u01c4ON"),
    "sharp-s": ("strasse", "straße", "STRASSE", "STRA\u1e9eE"),
    "long-s": ("sissi", "\u017fi\u017f\u017fi", "Si\u017fsi"),
    "kelvin": ("kelvin", "\u212aelvin"),
    "angstrom": ("ångström", "\u212bngström", "A\u030aNGSTRO\u0308M"),
    "dotted-capital-i": ("İzmir", "I\u0307zmir", "i\u0307zmir"),
    "sigma": ("\u03bb\u03cc\u03b3\u03bf\u03c2", "\u039b\u038c\u0393\u039f\u03a3"),
    "final-sigma-inside": ("\u03c3\u03bf\u03c6\u03cc\u03c2", "\u03c2\u03bf\u03c6\u03cc\u03c3"),
    "tonos-and-oxia": ("\u03ac\u03bd\u03bd\u03b1", "\u1f71\u03bd\u03bd\u03b1"),
    "iota-subscript": ("\u1fb3\u03b4\u03b7\u03c2", "\u1fbc\u0394\u0397\u03a3", "αιδης"),
    "greek-symbols": ("\u03b8\u03b2\u03c6\u03c0", "\u03d1\u03d0\u03d5\u03d6"),
    "cyrillic": ("андрей", "АНДРЕЙ", unicodedata.normalize("NFD", "Андрей")),
    "armenian": (
        "\u057d\u0565\u0580\u0563\u0565\u0587",
        "\u054d\u0535\u0550\u0533\u0535\u0535\u0552",
    ),
    "georgian": ("გიორგი", "გიორგი".upper()),
    "cherokee": ("\u13a0\u13c2\u13f4", "\uab70\uab92\u13fc"),
    "deseret": ("\U00010400\U00010401\U00010402", "\U00010428\U00010429\U0001042a"),
    "hebrew-presentation": ("\u05e9\u05c1\u05dc\u05d5\u05dd", "\ufb2a\u05dc\u05d5\u05dd"),
    "arabic-presentation": ("مريم", "\ufee3\ufeae\ufef3\ufee2"),
    "nukta": ("\u0958\u092e\u0930", "\u0915\u093c\u092e\u0930"),
    "circled": ("xyz", "ⓧⓨⓩ", "ⓍⓎⓏ"),
    "mathematical": ("eve", "\U0001d41e\U0001d42f\U0001d41e", "\U0001d5d8\U0001d5e9\U0001d5d8"),
    "superscript": ("h2o", "h\u00b2o", "H\u2082O"),
    "roman-numeral": ("henry viii", "Henry \u2167", "henry \u2177"),
    "trade-mark": ("acmetm", "acme\u2122"),
    "wide-digits": ("007", "\uff10\uff10\uff17"),
    "half-width-kana": ("カタカナ", "\uff76\uff80\uff76\uff85"),
    "half-width-voiced": (
        "ガギパ",
        "\uff76\uff9e\uff77\uff9e\uff8a\uff9f",
        "カ\u3099キ\u3099ハ\u309a",
    ),
    "squared-kana": ("キロメートル!", "\u3314\u334d!"),
    "compatibility-ideograph": ("金金金", "\uf90a金\uf90a"),
    "jamo": ("각각각", unicodedata.normalize("NFD", "각각각")),
    "joiners": ("\u0645\u06cc\u200c\u062e\u0648", "\u0645\u06cc\u062e\u0648"),
    "virama-and-joiners": (
        "\u0915\u094d\u0937",
        "\u0915\u094d\u200d\u0937",
        "\u0915\u094d\u200c\u0937",
    ),
    "no-break-space": ("ada l", "ada\u00a0l", "ada\u3000l"),
}

SEVERAL_NAMES = [
    ("eda", "eda1"),
    ("jose", "josé"),
    ("aeo", "\u0430\u0435\u043e"),
    ("İstanbul", "istanbul"),
    # The dotless i is a letter of its own, whose capital is that of the other.
    ("Sar\u0131", "SARI"),
    ("müller", "mueller"),
    ("øre", "ore"),
    ("łuk", "luk"),
    ("æsa", "aesa"),
    ("a\u0301\u0308xx", "a\u0308\u0301xx"),
    ("Ελένη", "Ελενη"),
    ("Пётр", "Петр"),
    ("さくら", "サクラ"),
    ("馬英九", "马英九"),
    ("१०७", "১০৭"),
    ("cafe 😀", "cafe 😁"),
    ("ab c", "abc"),
    ("o'neil", "oneil"),
    ("o'hara", "o\u2019hara"),
    ("x-ray", "x\u2010ray"),
]

USERNAMES = [
    "ada",
    "al",
    "李娜",
    # Joiners that the script needs (RFC 5892, appendix A.1 and A.2).
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\u0645\u064e\u06cc\u064e\u200c\u064e\u062e\u0648",
    "\u0915\u094d\u200d\u0937",
    "\u0915\u094d\u200c\u0937",
    "\u0d28\u0d4d\u200d\u0d31",
    "\u0dc1\u0dca\u200d\u0dbb\u0dd3",
    "Ada Lovelace",
    "x" * MAX_USERNAME,
    "王小明",
    "王小明王",
    "Ærøskøbing",
    "o'neil-smith_3.14",
    "🦊🦊🦊",
    "مريم",
    "अनन्या",
    "\U0001f468\U0001f468\U0001f468",
    "<b>",
    "a;b--",
    "%00",
    "null",
    "...",
    "007",
]

# Single scripts, together with common characters, and scripts that are written together.
ONE_WRITING_SYSTEM = [
    "José",
    unicodedata.normalize("NFD", "José Nguyễn"),
    "Đặng Thị Ngọc-Ánh",
    "Алексей",
    unicodedata.normalize("NFD", "Андрей Їжак"),
    "Саша 2000 😀",
    "Ελένη",
    unicodedata.normalize("NFD", "Ελένη ΐ"),
    "ירדן",
    "שָׁלוֹם",
    "مريم",
    "مريم٣٤",
    "अनन्या10",
    "अनन्या१०",
    "สมชาย",
    "Արամ",
    "გიორგი",
    "አማርኛ",
    "ᏣᎳᎩ",
    "ⵜⵉⴼⵉⵏⴰⵖ",
    "山田太郎",
    "さくら",
    "カタカナー",
    "ﾊﾝｶｸﾀﾞ",
    "田中さくらサクラ",
    "Tanaka 田中 さくら サクラ",
    "王小明 Wang",
    "王ㄨㄤˊ Wang",
    "김민준",
    "김민준 金民俊 Kim",
    "ＡＢＣさくら",
    "\U0001d41a\U0001d41d\U0001d41a",
    "a.b·c",
    "o\u2019neil",
    "½ & ½",
    "١٢٣",
    "007 😀",
]

SEVERAL_SCRIPTS = {
    "cyrillic-a-in-latin": "p\u0430yp\u0430l",
    "cyrillic-but-one": "\u0440\u0430\u0443\u0440\u0430l",
    "cyrillic-es-in-capitals": "A\u0421ME",
    "greek-omicron-in-latin": "g\u03bf\u03bfgle",
    "greek-capital-in-latin": "\u0391dmin",
    "greek-in-cyrillic": "Алексей \u03bf",
    "armenian-in-latin": "l\u0585g\u0585",
    "cherokee-in-latin": "\u13aaDMIN",
    "small-cherokee-in-latin": "\uab70dmin",
    "georgian-in-latin": "\u10e7ada",
    "coptic-in-latin": "g\u2c9fogle",
    "lisu-in-latin": "\ua4eedmin",
    "hebrew-in-latin": "ada\u05e1",
    "arabic-in-latin": "ada مريم",
    "arabic-digit-letter-in-latin": "ada\u0647",
    "devanagari-in-latin": "adaअ",
    "thai-in-latin": "ada ส",
    "cyrillic-in-japanese": "さくらДа",
    "hangul-and-kana": "김さくら",
    "bopomofo-and-kana": "ㄨㄤさくら",
    "bopomofo-and-hangul": "ㄨㄤ김",
    "han-and-cyrillic": "王Алексей",
    "accent-of-another-script": "ada\u0483",
    "cyrillic-between-mathematical": "\U0001d4f9\u0430\U0001d502\U0001d4f9\u0430\U0001d4f5",
    "mathematical-greek-in-latin": "p\U0001d6fcypal",
    "micro-sign": "\u00b5torrent",
    "ohm-sign": "\u2126mega",
}

SEVERAL_NUMBER_SYSTEMS = {
    "arabic-and-ascii": "مريم٣4",
    "arabic-and-persian": "مريم٣۴",
    "devanagari-and-ascii": "अनन्या१0",
    "bengali-four-like-eight": "\u09ea8\u09ea",
}

NO_USERNAMES = {
    "empty": "",
    "too-short": "a",
    "too-short-once-folded": "a\u0301",
    "too-long": "x" * (MAX_USERNAME + 1),
    "too-long-once-folded": "\ufdfa" * 5,
    "blank": "   ",
    "space-before": " ada",
    "space-behind": "ada ",
    "wide-space-behind": "ada\u3000",
    "no-break-space-before": "\u00a0ada",
    "two-spaces": "ada  l",
    "two-different-spaces": "ada \u2003l",
    "nul": "ada\0",
    "newline": "ada\nl",
    "tab": "ada\tl",
    "escape": "ada\x1b[31m",
    "delete": "ada\x7f",
    "c1-control": "ada\x85",
    "zero-width-space": "ada\u200b",
    "zero-width-joiner": "a\u200dda",
    "zero-width-non-joiner": "a\u200cda",
    "joiner-of-emoji": "\U0001f468\u200d\U0001f469",
    "joiner-between-arabic-letters": "\u0645\u06cc\u200d\u062e\u0648",
    "non-joiner-behind-a-letter-that-joins-nothing": "\u0627\u200c\u062e\u0648",
    "non-joiner-at-the-end": "\u0645\u06cc\u200c",
    "two-non-joiners": "\u0645\u06cc\u200c\u200c\u062e\u0648",
    "joiner-behind-a-letter": "\u0915\u200d\u0937",
    "joiners-in-a-row": "\u0915\u094d\u200d\u200d\u0937",
    "word-joiner": "a\u2060da",
    "byte-order-mark": "\ufeffada",
    "soft-hyphen": "a\u00adda",
    "right-to-left-override": "ada\u202egnp",
    "left-to-right-isolate": "\u2066ada",
    "arabic-letter-mark": "ada\u061c",
    "variation-selector": "ada\ufe0f",
    "tag": "ada\U000e0041",
    "line-separator": "ada\u2028l",
    "hangul-filler": "ada\u3164",
    "half-width-hangul-filler": "ada\uffa0",
    "braille-blank": "ada\u2800",
    "grapheme-joiner": "a\u034fda",
    "lone-surrogate": "ada\ud800",
    "private-use": "ada\ue000",
    "unassigned": "ada\u0378",
    "noncharacter": "ada\uffff",
    "at": "ada@example.com",
    "full-width-at": "ada\uff20home",
    "small-at": "ada\ufe6bhome",
}

EMAILS = [
    "ada@example.com",
    "Ada.Lovelace+catalog@Example.COM",
    "a@b.co",
    "o'neil@example.com",
    "x" * 64 + "@example.com",
    "ada@" + "d" * 50 + "." + "e" * 60 + ".com",
    "ада@пример.рф",
    "ada@xn--e1afmkfd.xn--p1ai",
    "\uff41da@example.com",
    # Special-use domains (RFC 6761 and 6762).
    "ada@nas.local",
    "ada@shop.test",
    "ada@localhost",
    "ada@LocalHost",
    "ada@mail.localhost",
    "ada@example.invalid",
]

NO_EMAILS = {
    "empty": "",
    "no-at": "ada.example.com",
    "no-local-part": "@example.com",
    "no-domain": "ada@",
    "two-ats": "ada@home@example.com",
    "no-dot": "ada@example",
    "no-letter-at-the-end": "ada@example.1",
    "address-literal": "ada@[127.0.0.1]",
    "dot-before": ".ada@example.com",
    "dot-behind": "ada.@example.com",
    "two-dots": "ada..l@example.com",
    "space": "ada l@example.com",
    "space-behind": "ada@example.com ",
    "newline-behind": "ada@example.com\n",
    "header-injection": "ada@example.com\r\nBcc: all@example.com",
    "display-name": "Ada <ada@example.com>",
    "list": "ada@example.com,bob@example.com",
    "quoted": '"ada l"@example.com',
    "underscore-domain": "ada@exa_mple.com",
    "hyphen-domain": "ada@-example.com",
    "empty-label": "ada@example..com",
    "local-part-of-65": "x" * 65 + "@example.com",
    "local-part-of-65-octets": "я" * 33 + "@example.com",
    "label-of-64": "ada@" + "d" * 64 + ".com",
    "too-long": "ada@" + ("d" * 50 + ".") * 3 + "com",
    "zero-width-space": "ada\u200b@example.com",
    "right-to-left-override": "ada\u202e@example.com",
    "nul": "ada\0@example.com",
    "lone-surrogate": "ada\udc00@example.com",
}


FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")

MANY_ALIKE = regex.compile(
    r"[\p{Unified_Ideograph}\p{Block=Hangul_Syllables}\u115f\u1160\u3164\uffa0]"
)
"""Ideographs and Hangul syllables, which are many and behave alike."""

LETTERS = [
    character
    for character in map(chr, range(sys.maxunicode + 1))
    if unicodedata.category(character).startswith("L") and not MANY_ALIKE.match(character)
]

OTHER_FAULT = "other"


def mixing_fault(name: str) -> str | None:
    """Return what ``checked_username`` says about mixing, ``OTHER_FAULT`` or None."""
    try:
        checked_username(name)
    except ValueError as error:
        return str(error) if "mix" in str(error) else OTHER_FAULT
    return None


class TestFold:
    @pytest.mark.parametrize("spellings", ONE_NAME.values(), ids=ONE_NAME)
    def test_spellings_of_one_name_fold_to_one_key(self, spellings: tuple[str, ...]) -> None:
        assert len({fold(name) for name in spellings}) == 1

    @pytest.mark.parametrize(("one", "other"), SEVERAL_NAMES)
    def test_different_names_fold_to_different_keys(self, one: str, other: str) -> None:
        assert fold(one) != fold(other)

    @given(st.text(max_size=20))
    @example("\u0345\u03b9")
    @example("\u1e9e")
    @example("\u03d2\u0301")
    def test_fold_is_idempotent(self, name: str) -> None:
        assert fold(fold(name)) == fold(name)

    @given(st.text(max_size=20))
    def test_fold_does_not_depend_on_the_normal_form(self, name: str) -> None:
        for form in FORMS:
            assert fold(unicodedata.normalize(form, name)) == fold(name)

    # The dotless i is excluded: it is a letter of its own, but shares its capital with i.
    @given(st.text(st.characters(max_codepoint=0x24F, exclude_characters="\u0131"), max_size=20))
    def test_fold_does_not_depend_on_case(self, name: str) -> None:
        assert fold(name.casefold()) == fold(name.swapcase().casefold()) == fold(name)


class TestUsername:
    @pytest.mark.parametrize("name", USERNAMES, ids=lambda name: ascii(name)[:24])
    def test_valid_username_is_kept_as_it_is(self, name: str) -> None:
        assert checked_username(name) == name

    @pytest.mark.parametrize("name", NO_USERNAMES.values(), ids=NO_USERNAMES)
    def test_misleading_or_oversized_username_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"^must "):
            checked_username(name)

    @pytest.mark.parametrize("name", ONE_WRITING_SYSTEM)
    def test_username_in_one_writing_system_is_accepted(self, name: str) -> None:
        assert checked_username(name) == name

    def test_every_letter_has_a_script(self) -> None:
        for letter in LETTERS:
            assert mixing_fault(letter * 3) in {None, OTHER_FAULT}

    @pytest.mark.parametrize("name", SEVERAL_SCRIPTS.values(), ids=SEVERAL_SCRIPTS)
    def test_username_with_letters_of_several_scripts_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"^must not mix letters of several scripts"):
            checked_username(name)

    def test_letter_of_another_script_does_not_pass_for_latin_by_folding(self) -> None:
        goes_with_latin = regex.compile(
            r"[\p{scx=Latn}\p{scx=Zyyy}\p{scx=Zinh}"
            r"\p{scx=Hani}\p{scx=Hira}\p{scx=Kana}\p{scx=Bopo}\p{scx=Hang}]"
        )
        others = [letter for letter in LETTERS if not goes_with_latin.match(letter)]
        # Canonically equivalent to the prime, which is common to all scripts.
        others.remove("\N{GREEK NUMERAL SIGN}")
        assert len(others) > 10_000

        for letter in others:
            with pytest.raises(ValueError, match=r"^must not mix letters"):
                checked_username(f"abc{letter}")

    @pytest.mark.parametrize("name", SEVERAL_NUMBER_SYSTEMS.values(), ids=SEVERAL_NUMBER_SYSTEMS)
    def test_username_with_digits_of_several_systems_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"^must not mix digits of several number systems"):
            checked_username(name)

    @given(st.text(max_size=20))
    @example("p\U0001d6fcypal")
    @example("ada\u0384")
    @example("ada\u06611")
    def test_verdict_on_mixing_does_not_depend_on_the_normal_form(self, name: str) -> None:
        verdicts = {mixing_fault(unicodedata.normalize(form, name)) for form in FORMS}

        assert len(verdicts - {OTHER_FAULT}) <= 1

    def test_seeded_usernames_are_valid(self) -> None:
        # Numbers up to 2000 use every name part.
        for number in range(1, 2000):
            assert checked_username(username_of(number))

    @given(st.text(max_size=MAX_USERNAME + 5))
    def test_valid_username_fits_its_columns(self, name: str) -> None:
        try:
            checked_username(name)
        except ValueError:
            return

        assert 2 <= len(fold(name)) <= MAX_USERNAME
        assert "@" not in fold(name)
        assert name.encode().decode() == name


class TestEmail:
    @pytest.mark.parametrize("address", EMAILS, ids=lambda address: ascii(address)[:40])
    def test_valid_email_is_kept_as_it_is(self, address: str) -> None:
        assert len(address) <= MAX_EMAIL
        assert checked_email(address) == address

    @pytest.mark.parametrize("address", NO_EMAILS.values(), ids=NO_EMAILS)
    def test_invalid_email_is_refused(self, address: str) -> None:
        with pytest.raises(ValueError, match=r"^(must|is not) "):
            checked_email(address)


class TestUniqueness:
    """Uniqueness by the indexes on the folded keys, on every engine."""

    async def test_second_spelling_of_a_name_is_taken(self, anyone: Caller) -> None:
        numbers = iter(range(1000))

        for first, *others in ONE_NAME.values():
            made = await anyone.sign_up(first, email=f"{next(numbers)}@example.com")
            assert made.status_code == 201, ascii(first)
            for other in others:
                answer = await anyone.sign_up(other, email=f"{next(numbers)}@example.com")

                assert problem_of(answer) == (409, "taken"), ascii(other)
                assert fields_of(answer) == ["/username"]

    async def test_different_names_coexist(self, anyone: Caller) -> None:
        for number, name in enumerate(name for pair in SEVERAL_NAMES for name in pair):
            answer = await anyone.sign_up(name, email=f"{number}@example.com")

            assert answer.status_code == 201, ascii(name)

    async def test_hundred_spellings_at_once_have_one_winner_for_the_name(
        self, database: Database
    ) -> None:
        spellings = hundred_spellings_of("fixe")

        outcomes = await race(
            database,
            service.sign_up,
            [(name, f"{number}@example.com") for number, name in enumerate(spellings)],
        )

        assert outcomes == {(): 1, ("/username",): 99}

    async def test_hundred_spellings_at_once_have_one_winner_for_the_address(
        self, database: Database
    ) -> None:
        spellings = hundred_spellings_of("fixe")

        outcomes = await race(
            database,
            service.sign_up,
            [(f"user{number}", f"{name}@Example.com") for number, name in enumerate(spellings)],
        )

        assert outcomes == {(): 1, ("/email",): 99}

    async def test_control_all_spellings_sign_up_without_folding(self, database: Database) -> None:
        """Control of the races above: without folding every sign-up succeeds."""
        spellings = hundred_spellings_of("fixe")

        outcomes = await race(
            database,
            sign_up_without_folding,
            [(name, f"{number}@example.com") for number, name in enumerate(spellings)],
        )

        assert outcomes == {(): 100}


def hundred_spellings_of(word: str) -> list[str]:
    """Return a hundred spellings of one name."""
    wide = {ord(letter): ord(letter) + 0xFEE0 for letter in word + word.upper()}
    letters = [
        (letter, letter.upper(), letter.translate(wide), letter.upper().translate(wide))
        for letter in word
    ]
    spellings = ["".join(each) for each in islice(product(*letters), 100)]
    assert len(set(spellings)) == 100
    return spellings


async def race(
    database: Database,
    sign_up: Callable[..., Awaitable[User]],
    accounts: Sequence[tuple[str, str]],
) -> Counter[tuple[str, ...]]:
    """Sign up concurrently, and count the taken fields of each attempt; () is success."""

    async def attempt(username: str, email: str) -> tuple[str, ...]:
        try:
            await database.transaction(sign_up, username=username, email=email, password_hash="x")
        except DatabaseBusy:
            # On a busy machine the last of a hundred may time out waiting for a connection: retry.
            return await attempt(username, email)
        except DuplicateValue as refusal:
            return tuple(error.name for error in refusal.errors)
        return ()

    return Counter(await asyncio.gather(*(attempt(*account) for account in accounts)))


async def sign_up_without_folding(
    session: AsyncSession, *, username: str, email: str, password_hash: str
) -> User:
    """Check that the name is free and insert it, relying on the column's collation alone."""
    if await session.scalar(select(User.id).where(User.username == username)) is not None:
        raise DuplicateValue(errors=[FieldError("pointer", "/username", "is taken")])
    user = User(
        username=username,
        username_key=username,
        email=email,
        email_key=email,
        password_hash=password_hash,
        role=Role.USER,
    )
    session.add(user)
    await session.flush()
    return user
