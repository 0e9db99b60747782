"""Conditional requests: tags as clients send them, and what they are compared with."""

import pytest

from catalog.http.conditional import Tags, etag_of


class TestEtag:
    def test_it_changes_with_the_bytes_and_with_the_version(self) -> None:
        tags = {etag_of(body, version=version) for body in (b"a", b"b") for version in (1, 2, None)}

        assert len(tags) == 6
        assert all(tag.startswith('"') and tag.endswith('"') for tag in tags)

    def test_the_same_is_the_same(self) -> None:
        assert etag_of(b"a", version=7) == etag_of(b"a", version=7)


class TestTags:
    @pytest.mark.parametrize(
        "text",
        [
            '"1-a"',
            'W/"1-a"',
            '"x", "1-a"',
            '"x","1-a"',
            ' "x" ,  W/"1-a" ',
            ', ,"1-a",,',
            '"1-a", W/"y", "z"',
            '"a,b", "1-a"',
            "*",
            " * ",
        ],
    )
    def test_what_it_names_is_in_it(self, text: str) -> None:
        assert '"1-a"' in Tags(text)

    @pytest.mark.parametrize("text", ['"1-b"', 'W/"1"', '"x,"', '"1-A"', '""', '"*"'])
    def test_what_it_does_not_name_is_not(self, text: str) -> None:
        assert '"1-a"' not in Tags(text)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            ",",
            "1-a",
            '"1-a',
            '1-a"',
            "'1-a'",
            '"1-a "',
            'w/"1-a"',
            'W/ "1-a"',
            '"1-a" "2-b"',
            '"1-a";q=1',
            '*, "1-a"',
            '"1-a", *',
            "**",
            '"\x00"',
        ],
    )
    def test_what_is_neither_tags_nor_any_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="entity tags"):
            Tags(text)
