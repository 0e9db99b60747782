"""Parsing of what proxies say about a request: ``Forwarded`` (RFC 7239) and ``X-Forwarded-For``."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address

MAX_FORWARDED_BYTES = 4096
"""Longest ``Forwarded`` that is parsed."""

_MAX_NODE_CHARACTERS = 64

# RFC 7239, section 6: an IPv6 address is in brackets, and a port may be a pseudonym.
_NODE = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]+))(?::(?:[0-9]{1,5}|_[\w.\-]+))?", re.ASCII
)

# Section 4. Some proxies do not quote addresses with a port or in brackets, although a token has
# neither colons nor brackets.
_PAIR = re.compile(
    r"[ \t]*+(?:(?P<name>[\w!#$%&'*+.^`|~\-]++)="
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*+)"|(?P<plain>[^\s",;]++)))?[ \t]*+(?P<end>[,;]|\Z)',
    re.ASCII,
)
_ESCAPE = re.compile(r"\\(.)")


def parse_node(text: str) -> Address:
    """Parse the address of a node; it may have a port.

    Raises:
        ValueError: it has no address: it is ``unknown``, a pseudonym, or malformed.
    """
    text = text.strip(' \t"')
    # A zone is meaningful only on the host that names it.
    if len(text) > _MAX_NODE_CHARACTERS or "%" in text:
        raise ValueError("not an address")
    return parse_address(text)


# Most requests come from the proxies; parsing their addresses took 5 % of the time of a page.
@lru_cache(1024)
def parse_address(text: str) -> Address:
    """Parse a node's address; an IPv4-mapped IPv6 address becomes its IPv4 address.

    Raises:
        ValueError: the text has no address.
    """
    node = _NODE.fullmatch(text)
    parsed = ip_address((node["v6"] or node["v4"]) if node else text)
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


def parse_forwarded(lines: Iterable[bytes]) -> Sequence[Mapping[str, str]]:
    """Parse the fields of a ``Forwarded`` header into its elements, the nearest proxy's last.

    Returns:
        The parameters of each element, by name in lower case.

    Raises:
        ValueError: the header is malformed or too long.
    """
    text = b",".join(lines).decode("latin-1")
    if len(text) > MAX_FORWARDED_BYTES:
        raise ValueError("too long")
    elements: list[dict[str, str]] = [{}]
    at = 0
    while True:
        pair = _PAIR.match(text, at)
        if pair is None:
            raise ValueError("malformed")
        if pair["name"] is not None:
            name = pair["name"].lower()
            if name in elements[-1]:
                raise ValueError("a parameter is repeated")
            quoted = pair["quoted"]
            elements[-1][name] = pair["plain"] if quoted is None else _ESCAPE.sub(r"\1", quoted)
        if pair["end"] == "":
            return elements
        if pair["end"] == ",":
            elements.append({})
        at = pair.end()
