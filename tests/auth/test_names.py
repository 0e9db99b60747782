"""Which names are one name, and which are none."""

import sys
import unicodedata
from typing import Literal

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from catalog.auth.models import MAX_EMAIL, MAX_USERNAME
from catalog.auth.names import checked_email, checked_username, fold
from catalog.auth.samples import username_of

ONE_NAME = {
    "case": ("ada", "ADA", "Ada", "aDa"),
    "width": ("ada", "\uff41\uff44\uff41", "\uff21\uff24\uff21", "\uff41Da"),
    "form": ("andré", "andre\u0301", "ANDRE\u0301"),
    "ligature": ("fiona", "\ufb01ona", "FIONA"),
    "sharp-s": ("strasse", "straße", "STRASSE", "STRA\u1e9eE"),
    "sigma": ("\u03bb\u03cc\u03b3\u03bf\u03c2", "\u039b\u038c\u0393\u039f\u03a3"),
    "kelvin": ("kelvin", "\u212aelvin"),
    "circled": ("abc", "ⓐⓑⓒ", "ⒶⒷⒸ"),
    "mathematical": ("ada", "\U0001d41a\U0001d41d\U0001d41a"),
    "superscript": ("h2o", "h\u00b2o"),
    "half-width-kana": ("カタカナ", "\uff76\uff80\uff76\uff85"),
    "jamo": ("각각각", unicodedata.normalize("NFD", "각각각")),
    "no-break-space": ("ada l", "ada\u00a0l", "ada\u3000l"),
}

SEVERAL_NAMES = [
    ("ada", "ada1"),
    ("jose", "josé"),
    ("ada", "аda"),  # noqa: RUF001 (the first letter is Cyrillic, which folding does not touch)
    ("İzmir", "izmir"),
    ("cafe 😀", "cafe 😁"),
    ("ab c", "abc"),
    ("o'neil", "oneil"),
]

USERNAMES = [
    "ada",
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

# By themselves, beside what all scripts share, and those that are written side by side.
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
    "too-short": "ab",
    "too-short-once-folded": "a\u0301b",
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
]

NO_EMAILS = {
    "empty": "",
    "no-at": "ada.example.com",
    "no-local-part": "@example.com",
    "no-domain": "ada@",
    "two-ats": "ada@home@example.com",
    "no-dot": "ada@localhost",
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
    "reserved": "ada@example.invalid",
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

# Without ideographs and Hangul syllables, which are many and alike.
LETTERS = [
    character
    for character in map(chr, range(sys.maxunicode + 1))
    if unicodedata.category(character).startswith("L")
    and not regex.match(
        r"[\p{Unified_Ideograph}\p{Block=Hangul_Syllables}\u115f\u1160\u3164\uffa0]", character
    )
]

OTHER_FAULT = "other"


def mixing_fault(name: str) -> str | None:
    """What ``checked_username`` finds mixed, if it comes that far."""
    try:
        checked_username(name)
    except ValueError as error:
        return str(error) if "mix" in str(error) else OTHER_FAULT
    return None


class TestFold:
    @pytest.mark.parametrize("spellings", ONE_NAME.values(), ids=ONE_NAME)
    def test_spellings_of_one_name_become_one(self, spellings: tuple[str, ...]) -> None:
        assert len({fold(name) for name in spellings}) == 1

    @pytest.mark.parametrize(("one", "other"), SEVERAL_NAMES)
    def test_other_names_stay_others(self, one: str, other: str) -> None:
        assert fold(one) != fold(other)

    @given(st.text(max_size=20))
    @example("\u0345\u03b9")
    @example("\u1e9e")
    @example("\u03d2\u0301")
    def test_a_folded_name_is_folded(self, name: str) -> None:
        assert fold(fold(name)) == fold(name)

    @given(st.text(max_size=20))
    def test_no_normal_form_changes_it(self, name: str) -> None:
        for form in FORMS:
            assert fold(unicodedata.normalize(form, name)) == fold(name)

    # The dotless i is a letter of its own, whose capital is that of the other.
    @given(st.text(st.characters(max_codepoint=0x24F, exclude_characters="\u0131"), max_size=20))
    def test_no_case_changes_it(self, name: str) -> None:
        assert fold(name.casefold()) == fold(name.swapcase().casefold()) == fold(name)


class TestUsername:
    @pytest.mark.parametrize("name", USERNAMES, ids=lambda name: ascii(name)[:24])
    def test_it_is_kept_as_it_is(self, name: str) -> None:
        assert checked_username(name) == name

    @pytest.mark.parametrize("name", NO_USERNAMES.values(), ids=NO_USERNAMES)
    def test_what_misleads_or_does_not_fit_is_none(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"^must "):
            checked_username(name)

    @pytest.mark.parametrize("name", ONE_WRITING_SYSTEM)
    def test_it_may_be_in_any_script(self, name: str) -> None:
        assert checked_username(name) == name

    def test_every_letter_that_there_is_has_a_script(self) -> None:
        for letter in LETTERS:
            assert mixing_fault(letter * 3) in {None, OTHER_FAULT}

    @pytest.mark.parametrize("name", SEVERAL_SCRIPTS.values(), ids=SEVERAL_SCRIPTS)
    def test_it_keeps_to_one_script(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"^must not mix letters of several scripts"):
            checked_username(name)

    def test_no_letter_of_another_script_gets_in_among_latin_ones_by_folding(self) -> None:
        goes_with_latin = regex.compile(
            r"[\p{scx=Latn}\p{scx=Zyyy}\p{scx=Zinh}"
            r"\p{scx=Hani}\p{scx=Hira}\p{scx=Kana}\p{scx=Bopo}\p{scx=Hang}]"
        )
        others = [letter for letter in LETTERS if not goes_with_latin.match(letter)]
        # Canonically the same as the prime, which belongs to all scripts.
        others.remove("\N{GREEK NUMERAL SIGN}")
        assert len(others) > 10_000

        for letter in others:
            with pytest.raises(ValueError, match=r"^must not mix letters"):
                checked_username(f"abc{letter}")

    @pytest.mark.parametrize("name", SEVERAL_NUMBER_SYSTEMS.values(), ids=SEVERAL_NUMBER_SYSTEMS)
    def test_it_keeps_to_one_number_system(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"^must not mix digits of several number systems"):
            checked_username(name)

    @given(st.text(max_size=20))
    @example("p\U0001d6fcypal")
    @example("ada\u0384")
    @example("ada\u06611")
    def test_all_its_forms_are_judged_alike(self, name: str) -> None:
        verdicts = {mixing_fault(unicodedata.normalize(form, name)) for form in FORMS}

        assert len(verdicts - {OTHER_FAULT}) <= 1

    def test_sample_accounts_have_one(self) -> None:
        # The numbers at which the last of all name parts has had its turn.
        for number in range(1, 2000):
            assert checked_username(username_of(number))

    @given(st.text(max_size=MAX_USERNAME + 5))
    def test_what_is_one_fits_its_columns(self, name: str) -> None:
        try:
            checked_username(name)
        except ValueError:
            return

        assert 3 <= len(fold(name)) <= MAX_USERNAME
        assert "@" not in fold(name)
        assert name.encode().decode() == name


class TestEmail:
    @pytest.mark.parametrize("address", EMAILS, ids=lambda address: ascii(address)[:40])
    def test_it_is_kept_as_it_is(self, address: str) -> None:
        assert len(address) <= MAX_EMAIL
        assert checked_email(address) == address

    @pytest.mark.parametrize("address", NO_EMAILS.values(), ids=NO_EMAILS)
    def test_what_is_no_address_is_none(self, address: str) -> None:
        with pytest.raises(ValueError, match=r"^(must|is not) "):
            checked_email(address)
