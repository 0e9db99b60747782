"""Targets of requests: origin-form and absolute-form mean the same."""

import h11
import pytest

from catalog.errors import MalformedRequest
from catalog.fastpath.request_head import MAX_FIELDS, has_too_many_fields, head_of


def request(target: bytes, method: bytes = b"GET") -> h11.Request:
    headers = [(b"Host", b"catalog"), (b"Accept", b"*/*")]
    return h11.Request(method=method, target=target, headers=headers)


class TestHeadOf:
    @pytest.mark.parametrize(
        ("target", "host", "path"),
        [
            (b"/api/products?q=%zz", b"catalog", b"/api/products?q=%zz"),
            (b"//other/api", b"catalog", b"//other/api"),
            (b"http://other/api/products?limit=1", b"other", b"/api/products?limit=1"),
            (b"HTTPS://other:8000/livez", b"other:8000", b"/livez"),
            (b"http://[::1]:80/livez", b"[::1]:80", b"/livez"),
            (b"http://other", b"other", b"/"),
            (b"http://other?q=1", b"other", b"/?q=1"),
        ],
    )
    def test_target_is_read_in_origin_form(self, target: bytes, host: bytes, path: bytes) -> None:
        head = head_of(request(target))

        assert head.target == path
        assert [value for name, value in head.headers if name == b"host"] == [host]
        assert (b"accept", b"*/*") in head.headers

    @pytest.mark.parametrize(
        "target",
        [
            *(b"*", b"livez", b"?q=1", b"catalog:80", b"http:/livez", b"http:///livez"),
            *(b"http://user@other/", b"http://other:x/", b"http://o ther/".replace(b" ", b"<")),
            *(b"/%", b"/%0", b"/%zz", b"/a%00b", b"http://other/%zz"),
        ],
    )
    def test_other_target_is_refused(self, target: bytes) -> None:
        with pytest.raises(MalformedRequest):
            head_of(request(target))


class TestHasTooManyFields:
    LINE = b"GET / HTTP/1.1\r\n"

    def test_fields_of_a_head_are_counted_to_its_end(self) -> None:
        for end in (b"\r\n", b"\n"):
            most = self.LINE + (b"a:" + end) * MAX_FIELDS
            assert not has_too_many_fields(most)
            assert not has_too_many_fields(most + end)
            assert not has_too_many_fields(most + end + b"x\n" * 5000)
            assert has_too_many_fields(most + b"a:" + end)
            assert has_too_many_fields(most + b"a:" + end + end)
