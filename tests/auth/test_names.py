"""Which names are one name, and which are none."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from catalog.auth.models import MAX_EMAIL, MAX_USERNAME
from catalog.auth.names import checked_email, checked_username, fold

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
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
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
