"""Folding: equal words become alike, and long texts are cut only where it changes nothing."""

import sys
import unicodedata

import pytest

from catalog.products.search import folding


class TestFolded:
    @pytest.mark.parametrize(
        ("text", "plain"),
        [
            ("LAMP Nr. 5", "lamp nr. 5"),
            ("Crème brûlée", "creme brulee"),
            ("Straße", "strasse"),
            ("Øø Łł Đđ Ðð", "oo ll dd dd"),
            ("Þþ Ææ Œœ \u0131I Ħħ", "thth aeae oeoe ii hh"),
            ("\uff2c\uff21\uff2d\uff30 \ufb01x \u00bd", "lamp fix 1\u20442"),
            ("\uff9c\uff9d", "\u30ef\u30f3"),
            ("soft\u00adhyphen, zero\u200dwidth\ufeff", "softhyphen, zerowidth"),
            ("\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd", "\u05e9\u05dc\u05d5\u05dd"),
            ("\ud55c\uae00", "\ud55c\uae00"),
        ],
    )
    def test_case_width_and_accents_are_folded(self, text: str, plain: str) -> None:
        assert folding.folded(text) == plain
        assert folding.folded(unicodedata.normalize("NFD", text)) == plain


class TestParts:
    def test_character_after_a_cut_is_never_joined_to_the_text_before_it(self) -> None:
        """Only second characters of compositions, and vowels and ends of Hangul, can be joined."""
        characters = [chr(n) for n in range(sys.maxunicode + 1) if not 0xD800 <= n < 0xE000]
        decompositions = filter(None, map(unicodedata.decomposition, characters))
        # Without a tag, such as <compat>, for normal forms decompose these and never compose them.
        pairs = [each.split() for each in decompositions if "<" not in each and " " in each]
        joined = {chr(int(second, 16)) for _, second in pairs}
        joined |= {chr(n) for n in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}

        cut = folding._CUT.findall("".join(characters))

        assert len(cut) > 100_000
        for character in cut:
            text = unicodedata.normalize("NFD", folding.folded(character))
            # What is dropped would let the next character follow the text before.
            assert text, ascii(character)
            assert not unicodedata.combining(text[0]), ascii(character)
            assert text[0] not in joined, ascii(character)
