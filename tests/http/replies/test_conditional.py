"""Conditional requests: entity tags and the lists of them that clients send."""

import pytest
from quart import Quart

from catalog.errors import InvalidRequest, PreconditionFailed
from catalog.http.replies.conditional import (
    Tags,
    cacheable_reply,
    etag_of,
    if_match,
    is_known,
)
from tests.support import handling


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
            '"1-a-gzip"',
            'W/"1-a-br"',
            '"1-a--gzip"',
            '"1-a;br"',
            '"x-gzip", "1-a;gzip"',
            '"1-a-zstd", "y"',
        ],
    )
    def test_listed_tag_matches(self, text: str) -> None:
        assert '"1-a"' in Tags(text)

    @pytest.mark.parametrize(
        "text",
        [
            *('"1-b"', 'W/"1"', '"x,"', '"1-A"', '""', '"*"', '"1-a-"', '"1-a-gzip2"', '"1-a-x"'),
            *('"-gzip"', '"1-agzip"', '"1-a-gzip-gzip"', '"gzip-1-a"', '"1-a-GZIP"'),
        ],
    )
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


class TestIfMatch:
    async def test_tags_of_all_fields_are_one_list(self) -> None:
        with handling(headers=[(b"if-match", b'"x"'), (b"if-match", b'"1-a"')]):
            tags = if_match()

        assert tags is not None
        assert '"x"' in tags
        assert '"1-a"' in tags
        assert '"y"' not in tags

    async def test_request_without_the_header_has_no_tags(self) -> None:
        with handling():
            assert if_match() is None

    async def test_malformed_header_is_refused_by_its_name(self) -> None:
        fields = [(b"if-match", b"1-a")]
        with handling(headers=fields), pytest.raises(InvalidRequest) as caught:
            if_match()

        (fault,) = caught.value.errors
        assert (fault.place, fault.name) == ("header", "If-Match")


class TestIsKnown:
    def test_tag_in_any_field_is_known(self) -> None:
        assert is_known('"1-a"', ['"x"', '"1-a"']) is True

    @pytest.mark.parametrize("values", [[], ['"x"'], ["1-a"]])
    def test_other_or_malformed_tags_are_not(self, values: list[str]) -> None:
        assert is_known('"1-a"', values) is False


class TestCacheableReply:
    async def test_client_with_the_representation_gets_304_without_a_body(
        self, bare_app: Quart
    ) -> None:
        with handling(bare_app, headers=[(b"if-none-match", b'"1-a"')]):
            reply = cacheable_reply(b"{}", '"1-a"', headers={"Vary": "Accept"})

        assert (reply.status, reply.body) == (304, b"")
        assert (reply.headers["ETag"], reply.headers["Vary"]) == ('"1-a"', "Accept")

    async def test_other_client_gets_the_body_and_its_tag(self, bare_app: Quart) -> None:
        with handling(bare_app, headers=[(b"if-none-match", b'"1-b"')]):
            reply = cacheable_reply(b"{}", '"1-a"', headers={"Vary": "Accept"})

        assert (reply.status, reply.body) == (200, b"{}")
        assert (reply.headers["ETag"], reply.headers["Vary"]) == ('"1-a"', "Accept")

    async def test_client_that_expects_another_representation_is_refused(
        self, bare_app: Quart
    ) -> None:
        with (
            handling(bare_app, headers=[(b"if-match", b'"1-b"')]),
            pytest.raises(PreconditionFailed) as caught,
        ):
            cacheable_reply(b"{}", '"1-a"', headers={})
        with handling(bare_app, headers=[(b"if-match", b'"1-b", "1-a"')]):
            assert cacheable_reply(b"{}", '"1-a"', headers={}).status == 200

        assert caught.value.headers["ETag"] == '"1-a"'
