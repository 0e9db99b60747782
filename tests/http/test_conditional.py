"""Conditional requests: entity tags and the lists of them that clients send."""

import pytest

from catalog.http.conditional import Tags, etag_of


class TestEtag:
    def test_etag_depends_on_body_and_version(self) -> None:
        tags = {etag_of(body, version=version) for body in (b"a", b"b") for version in (1, 2, None)}

        assert len(tags) == 6
        assert all(tag.startswith('"') and tag.endswith('"') for tag in tags)

    def test_etag_is_deterministic(self) -> None:
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
    def test_listed_tag_matches(self, text: str) -> None:
        assert '"1-a"' in Tags(text)

    @pytest.mark.parametrize("text", ['"1-b"', 'W/"1"', '"x,"', '"1-A"', '""', '"*"'])
    def test_unlisted_tag_does_not_match(self, text: str) -> None:
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
    def test_malformed_list_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="entity tags"):
            Tags(text)
