"""Targets of requests: origin-form and absolute-form mean the same."""

import h11
import pytest

from catalog.errors import HeadersTooLarge, MalformedRequest, UriTooLong
from catalog.fastpath.request_head import MAX_FIELDS, MAX_HEAD_BYTES, check_size, head_of


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


class TestCheckSize:
    LINE = b"GET / HTTP/1.1\r\n"

    @pytest.mark.parametrize("end", [b"\r\n", b"\n"])
    def test_fields_of_a_head_are_counted_to_its_end(self, end: bytes) -> None:
        most = self.LINE + (b"a:" + end) * MAX_FIELDS
        for head in (most, most + end, most + end + b"x\n" * 5000):
            check_size(head)
        for head in (most + b"a:" + end, most + b"a:" + end + end):
            with pytest.raises(HeadersTooLarge):
                check_size(head)

    @pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n"])
    def test_bytes_of_a_head_are_counted_to_its_end(self, end: bytes) -> None:
        begin = self.LINE + b"a:"
        most = begin + b" " * (MAX_HEAD_BYTES - len(begin + end))
        for head in (most, most + end, most + end + b"x" * 100_000):
            check_size(head)
        for head in (most + b" " + end, most + b" " * (len(end) + 1)):
            with pytest.raises(HeadersTooLarge):
                check_size(head)

    def test_request_line_without_end_is_too_long(self) -> None:
        with pytest.raises(UriTooLong):
            check_size(b"GET /" + b"a" * MAX_HEAD_BYTES)
