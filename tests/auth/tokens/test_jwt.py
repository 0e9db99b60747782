"""Tokens: the issued ones are accepted, and nothing else is."""

import asyncio
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256, sha384, sha512
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from pydantic import SecretStr
from quart import Quart

from catalog.auth.models import Role
from catalog.auth.tokens.jwt import MAX_TOKEN_LENGTH, Kind, issue_access_token
from tests.auth.tokens.handmade import (
    ABSENT,
    BASE64,
    KEY,
    KID,
    KINDS,
    claims_of,
    encoded,
    header_of,
    signed,
    token_with,
)
from tests.auth.tokens.signing_keys.pem import private_key, public_pem_of
from tests.auth.tokens.verdicts import EXPIRED, GOOD, INVALID, WRONG_KIND, verdict
from tests.http.wire import app_without_database, holder_of_tokens
from tests.support import Caller, memory_traced

RSA = private_key("RS256")

each_kind = pytest.mark.parametrize("kind", KINDS)


def later(seconds: float) -> int:
    return int(time.time() + seconds)


_NAMES = ("iss", "aud", "sub", "sid", "jti", "type", "iat", "nbf", "exp")


class TestIssuedToken:
    @pytest.mark.parametrize(
        ("kind", "typ", "life"),
        [("access", "at+jwt", timedelta(minutes=15)), ("refresh", "rt+jwt", timedelta(days=30))],
    )
    async def test_token_has_every_claim(
        self, holder: Caller, kind: str, typ: str, life: timedelta
    ) -> None:
        token = str(getattr(holder, f"{kind}_token"))

        claims = jwt.decode(token, KEY, algorithms=["HS256"], audience="catalog")

        assert jwt.get_unverified_header(token) == {
            "alg": "HS256",
            "typ": typ,
            "kid": KID,
        }
        own = {"role"} if kind == "access" else set()
        assert set(claims) == {*_NAMES, *own}
        assert (claims["iss"], claims["aud"], claims["type"]) == ("catalog", "catalog", kind)
        assert (claims["sub"], claims["sid"]) == ("1", "1")
        assert abs(claims["iat"] - time.time()) < 5
        assert claims["nbf"] == claims["iat"]
        assert claims["exp"] - claims["iat"] == life.total_seconds()

    async def test_lifetimes_come_from_the_settings(self, tmp_path: Path) -> None:
        app = app_without_database(
            tmp_path,
            access_token_ttl=timedelta(seconds=77),
            refresh_token_ttl=timedelta(seconds=99),
        )
        holder = await holder_of_tokens(app)

        lives = []
        for token in (holder.access_token, holder.refresh_token):
            claims = jwt.decode(str(token), KEY, algorithms=["HS256"], audience="catalog")
            lives.append(claims["exp"] - claims["iat"])

        assert lives == [77, 99]

    async def test_access_token_expires_with_its_session(self, bare_app: Quart) -> None:
        end = datetime.now(UTC) + timedelta(seconds=77)

        async with bare_app.app_context():
            token = issue_access_token(1, session_id=1, role=Role.USER, session_expires_at=end)

        claims = jwt.decode(token, KEY, algorithms=["HS256"], audience="catalog")
        assert claims["exp"] == int(end.timestamp())

    async def test_tokens_are_unique(self, bare_app: Quart) -> None:
        holders = [await holder_of_tokens(bare_app) for _ in range(20)]

        assert len({holder.access_token for holder in holders}) == 20

    @each_kind
    async def test_issued_token_is_accepted(
        self, bare_app: Quart, holder: Caller, kind: str
    ) -> None:
        assert await verdict(bare_app, str(getattr(holder, f"{kind}_token")), kind) == GOOD

    @each_kind
    async def test_token_is_accepted_by_another_instance_with_the_same_secret(
        self, tmp_path: Path, holder: Caller, kind: str
    ) -> None:
        other = app_without_database(tmp_path)

        assert await verdict(other, str(getattr(holder, f"{kind}_token")), kind) == GOOD

    @each_kind
    async def test_token_is_invalid_at_an_instance_with_another_secret(
        self, tmp_path: Path, holder: Caller, kind: str
    ) -> None:
        other = app_without_database(tmp_path, jwt_secret_key=SecretStr(uuid4().hex * 2))

        assert await verdict(other, str(getattr(holder, f"{kind}_token")), kind) == INVALID

    @each_kind
    async def test_hand_made_token_is_accepted(self, bare_app: Quart, kind: str) -> None:
        # Control: without it, the forgeries below might all be refused for one shared fault.
        assert await verdict(bare_app, token_with(kind), kind) == GOOD


class TestKnownTokens:
    """The cache of verified tokens."""

    async def test_cache_is_bounded_and_evicted_tokens_stay_valid(
        self, bare_app: Quart, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("catalog.auth.tokens.jwt.MAX_KNOWN_TOKENS", 3)
        tokens = [token_with("access", jti=uuid4().hex) for _ in range(10)]

        for _ in range(2):
            for token in tokens:
                assert await verdict(bare_app, token, "access") == GOOD

        assert len(bare_app.extensions["quart-jwt-extended"]._known) == 3

    async def test_cached_token_takes_little_memory(self, bare_app: Quart) -> None:
        known = bare_app.extensions["quart-jwt-extended"]
        tokens = [token_with("access", jti=uuid4().hex) for _ in range(500)]
        known.decode(tokens[0], Kind.ACCESS)

        with memory_traced() as grown:
            for token in tokens:
                known.decode(token, Kind.ACCESS)

        assert 500 < grown() / len(tokens) < 1.3 * 1024

    async def test_cached_token_is_still_checked_for_its_kind(self, bare_app: Quart) -> None:
        token = token_with("access")

        assert await verdict(bare_app, token, "access") == GOOD
        assert await verdict(bare_app, token, "refresh") == WRONG_KIND
        assert await verdict(bare_app, token[:-4] + "AAAA", "access") == INVALID


class TestKind:
    async def test_refresh_token_gives_no_access(self, bare_app: Quart, holder: Caller) -> None:
        assert await verdict(bare_app, str(holder.refresh_token), "access") == WRONG_KIND
        assert await verdict(bare_app, token_with("refresh"), "access") == WRONG_KIND

    async def test_access_token_does_not_refresh(self, bare_app: Quart, holder: Caller) -> None:
        assert await verdict(bare_app, str(holder.access_token), "refresh") == WRONG_KIND
        assert await verdict(bare_app, token_with("access"), "refresh") == WRONG_KIND

    async def test_header_and_claim_must_agree(self, bare_app: Quart) -> None:
        for header, claim in (("access", "refresh"), ("refresh", "access")):
            token = signed(header_of(header), claims_of(claim))

            for kind in KINDS:
                assert await verdict(bare_app, token, kind) == INVALID


class TestTime:
    @each_kind
    @pytest.mark.parametrize("seconds", [-28, -1, 0, 1])
    async def test_expiry_has_a_leeway_of_30_seconds(
        self, bare_app: Quart, kind: str, seconds: int
    ) -> None:
        token = token_with(kind, exp=later(seconds))

        assert await verdict(bare_app, token, kind) == GOOD

    @each_kind
    @pytest.mark.parametrize("seconds", [-32, -3600, -(10**9)])
    async def test_token_past_the_leeway_has_expired(
        self, bare_app: Quart, kind: str, seconds: int
    ) -> None:
        token = token_with(kind, exp=later(seconds))

        assert await verdict(bare_app, token, kind) == EXPIRED

    @each_kind
    @pytest.mark.parametrize("claim", ["nbf", "iat"])
    async def test_start_has_a_leeway_of_30_seconds(
        self, bare_app: Quart, kind: str, claim: str
    ) -> None:
        claims = claims_of(kind, **{claim: later(28)})
        token = signed(header_of(kind), claims)

        assert await verdict(bare_app, token, kind) == GOOD

    @each_kind
    @pytest.mark.parametrize("claim", ["nbf", "iat"])
    async def test_token_before_the_leeway_is_not_yet_valid(
        self, bare_app: Quart, kind: str, claim: str
    ) -> None:
        claims = claims_of(kind, **{claim: later(32)})
        token = signed(header_of(kind), claims)

        assert await verdict(bare_app, token, kind) == INVALID

    @each_kind
    async def test_cached_token_expires_too(self, bare_app: Quart, kind: str) -> None:
        token = token_with(kind, exp=later(-28))
        assert await verdict(bare_app, token, kind) == GOOD

        async with asyncio.timeout(10):
            while (last := await verdict(bare_app, token, kind)) == GOOD:
                await asyncio.sleep(0.1)

        assert last == EXPIRED

    async def test_expiry_is_reported_before_the_wrong_kind(self, bare_app: Quart) -> None:
        assert await verdict(bare_app, token_with("refresh", exp=0), "access") == EXPIRED


NO_IDS: dict[str, Any] = {
    "zero": "0",
    "negative": "-1",
    "plus": "+1",
    "space": " 1",
    "newline": "1\n",
    "nul": "1\0",
    "decimal": "1.0",
    "exponent": "1e2",
    "hexadecimal": "0x1",
    "underscore": "1_0",
    "name": "ada",
    "arabic-digit": "٣",
    "full-width-digit": "\uff11",
    "superscript": "²",
    "beyond-64-bit": str(2**63),
    "400-digits": "9" * 400,
    "2000-digits": "9" * 2000,
    "sql": "1 OR 1=1",
    "number": 1,
    "float": 1.0,
    "true": True,
}

# Signed with the service's key: even then a token with other claims must not be accepted.
MISMADE: dict[str, dict[str, Any]] = {
    **{f"{name}-missing": {name: ABSENT} for name in _NAMES},
    **{f"{name}-null": {name: None} for name in _NAMES},
    **{f"{name}-array": {name: []} for name in _NAMES},
    **{f"{name}-array-of-it": {name: [value]} for name, value in claims_of("refresh").items()},
    **{f"{name}-object": {name: {}} for name in _NAMES},
    **{f"{name}-empty": {name: ""} for name in _NAMES if name != "jti"},
    "iss-other": {"iss": "catalog2"},
    "iss-other-case": {"iss": "Catalog"},
    "iss-number": {"iss": 7},
    "aud-other": {"aud": "orders"},
    "aud-longer": {"aud": "catalog "},
    "aud-list": {"aud": ["catalog", "orders"]},
    "type-other": {"type": "session"},
    "type-other-case": {"type": "Access"},
    "type-number": {"type": 1},
    "type-true": {"type": True},
    **{
        f"{name}-{label}": {name: value}
        for name in ("sub", "sid")
        for label, value in NO_IDS.items()
    },
    "jti-number": {"jti": 7},
    "jti-true": {"jti": True},
    "exp-text": {"exp": "tomorrow"},
    "exp-infinite": {"exp": float("inf")},
    "exp-nan": {"exp": float("nan")},
    "nbf-text": {"nbf": "yesterday"},
    "nbf-infinite": {"nbf": float("inf")},
    "nbf-nan": {"nbf": float("nan")},
    "nbf-huge": {"nbf": 10**400},
    "iat-text": {"iat": "yesterday"},
    "iat-infinite": {"iat": float("inf")},
    "iat-minus-infinite": {"iat": float("-inf")},
    "iat-nan": {"iat": float("nan")},
    "iat-huge": {"iat": 10**400},
}

# Unexpected headers; signed with the service's key too, so that nothing else is wrong.
MISLABELLED: dict[str, dict[str, Any]] = {
    "typ-missing": {"typ": ABSENT},
    "typ-null": {"typ": None},
    "typ-jwt": {"typ": "JWT"},
    "typ-other-case": {"typ": "AT+JWT"},
    "typ-long": {"typ": "application/at+jwt"},
    "typ-array": {"typ": ["at+jwt"]},
    "typ-object": {"typ": {}},
    "alg-missing": {"alg": ABSENT},
    "alg-null": {"alg": None},
    "alg-empty": {"alg": ""},
    "alg-array": {"alg": ["HS256"]},
    "alg-object": {"alg": {}},
    "alg-number": {"alg": 256},
    "alg-other-case": {"alg": "hs256"},
    "alg-space": {"alg": "HS256 "},
    "alg-none": {"alg": "none"},
    "alg-none-capital": {"alg": "None"},
    "alg-hs384": {"alg": "HS384"},
    "alg-hs512": {"alg": "HS512"},
    "alg-rs256": {"alg": "RS256"},
    "alg-es256": {"alg": "ES256"},
    "alg-dir": {"alg": "dir", "enc": "A256GCM"},
    "crit": {"crit": ["exp"]},
    "crit-b64": {"crit": ["b64"], "b64": False},
    "crit-unknown": {"crit": ["https://example.com/x"], "https://example.com/x": 1},
    "crit-empty": {"crit": []},
    "crit-text": {"crit": "exp"},
    "crit-null": {"crit": None},
    "kid-missing": {"kid": ABSENT},
    "kid-null": {"kid": None},
    "kid-true": {"kid": True},
    "kid-number": {"kid": 7},
    "kid-array": {"kid": []},
    "kid-array-of-it": {"kid": [KID]},
    "kid-object": {"kid": {}},
    "kid-object-of-it": {"kid": {KID: KID}},
    "kid-empty": {"kid": ""},
    "kid-other": {"kid": "x" * len(KID)},
    "kid-other-case": {"kid": KID.swapcase()},
    "kid-cut-short": {"kid": KID[:-1]},
    "kid-longer": {"kid": f"{KID}="},
    "kid-space-before": {"kid": f" {KID}"},
    "kid-space-behind": {"kid": f"{KID} "},
    "kid-nul-behind": {"kid": f"{KID}\0"},
    "kid-list-in-text": {"kid": f"{KID},{KID}"},
    "kid-path": {"kid": "../../../../dev/null"},
    "kid-path-to-it": {"kid": f"./{KID}"},
    "kid-address": {"kid": "http://127.0.0.1:9/key"},
    "kid-sql": {"kid": f"{KID}' OR '1'='1"},
    "kid-union": {"kid": "x' UNION SELECT 'k'; --"},
    "kid-command": {"kid": "|/bin/true"},
    "kid-huge": {"kid": KID * 100},
    "kid-full-width": {"kid": "".join(chr(ord(each) + 0xFEE0) for each in KID)},
    "kid-emoji": {"kid": "🔑"},
    "kid-half-a-surrogate": {"kid": "\ud83d"},
    "kid-of-the-class": {"kid": "__class__"},
    "kid-is-the-secret": {"kid": KEY.decode()},
}


class TestMalformedToken:
    @each_kind
    @pytest.mark.parametrize("changes", MISMADE.values(), ids=MISMADE)
    async def test_token_with_malformed_claims_is_invalid(
        self, bare_app: Quart, kind: str, changes: dict[str, Any]
    ) -> None:
        assert await verdict(bare_app, token_with(kind, **changes), kind) == INVALID

    @pytest.mark.parametrize(
        "role", [ABSENT, None, "", "root", "Admin", "user ", 1, True, [], ["admin"], {}], ids=repr
    )
    async def test_access_token_without_a_valid_role_is_invalid(
        self, bare_app: Quart, role: object
    ) -> None:
        assert await verdict(bare_app, token_with("access", role=role), "access") == INVALID

    @each_kind
    @pytest.mark.parametrize("changes", MISLABELLED.values(), ids=MISLABELLED)
    async def test_token_with_a_malformed_header_is_invalid(
        self, bare_app: Quart, kind: str, changes: dict[str, Any]
    ) -> None:
        assert await verdict(bare_app, token_with(kind, changes), kind) == INVALID

    async def test_key_references_in_the_header_are_ignored(self, bare_app: Quart) -> None:
        for name in ("jku", "x5u", "x5c", "x5t", "jwk"):
            token = token_with("access", {name: "http://127.0.0.1:9/keys"})

            assert await verdict(bare_app, token, "access") == GOOD

    @pytest.mark.parametrize(
        "payload",
        [b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff", b"\xef\xbb\xbf{}", b"[" * 3000],
        ids=repr,
    )
    async def test_payload_that_is_not_an_object_is_invalid(
        self, bare_app: Quart, payload: bytes
    ) -> None:
        assert await verdict(bare_app, signed(header_of("access"), payload), "access") == INVALID

    @pytest.mark.parametrize(
        "header",
        [
            *[b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff", b"\xef\xbb\xbf{}"],
            *[b"[" * 2600, b'{"a":' * 400],
            f'{{"alg":"HS256","typ":"at+jwt","kid":"{KID}","x":[{"9" * 300}]}}'.encode(),
            f'{{"alg":"HS256","typ":"at+jwt","kid":"{KID}","x":{"9" * 2400}}}'.encode(),
        ],
        ids=lambda header: repr(header)[:30],
    )
    async def test_header_that_is_not_an_object_is_invalid(
        self, bare_app: Quart, header: bytes
    ) -> None:
        token = signed(header, claims_of("access"))
        assert len(token) < MAX_TOKEN_LENGTH

        # The parser may accept or refuse an overlong number in an unknown member.
        expected = {INVALID, GOOD} if header.startswith(b'{"alg"') else {INVALID}
        assert await verdict(bare_app, token, "access") in expected


def unsigned(algorithm: str) -> str:
    header = header_of("access", alg=algorithm)
    return f"{encoded(header).decode()}.{encoded(claims_of('access')).decode()}."


def by_library(key: Any, algorithm: str) -> str:
    return jwt.encode(claims_of("access"), key, algorithm, headers={"typ": "at+jwt", "kid": KID})


def parts() -> list[str]:
    return token_with("access").split(".")


# Tokens that can be made without the service's key.
FORGED: dict[str, Callable[[], str]] = {
    "alg-none-unsigned": lambda: unsigned("none"),
    "alg-none-capital-unsigned": lambda: unsigned("None"),
    "alg-none-upper-unsigned": lambda: unsigned("NONE"),
    "alg-none-mixed-unsigned": lambda: unsigned("nOnE"),
    "alg-hs256-unsigned": lambda: unsigned("HS256"),
    "alg-none-with-a-signature": lambda: unsigned("none") + parts()[2],
    "alg-none-by-library": lambda: by_library(None, "none"),
    "hs384": lambda: by_library(KEY, "HS384"),
    "hs512": lambda: by_library(KEY, "HS512"),
    "hs384-under-our-name": lambda: signed(header_of("access"), claims_of("access"), digest=sha384),
    "hs512-under-our-name": lambda: signed(header_of("access"), claims_of("access"), digest=sha512),
    "rs256": lambda: by_library(RSA, "RS256"),
    "ps256": lambda: by_library(RSA, "PS256"),
    "es256": lambda: by_library(ec.generate_private_key(ec.SECP256R1()), "ES256"),
    "eddsa": lambda: by_library(ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    "public-key-as-secret": lambda: signed(
        header_of("access"), claims_of("access"), key=public_pem_of(RSA).encode()
    ),
    "rs256-with-the-secret": lambda: signed(header_of("access", alg="RS256"), claims_of("access")),
    "key-sent-along": lambda: signed(
        header_of("access", jwk={"kty": "oct", "k": encoded(b"k" * 32).decode()}),
        claims_of("access"),
        key=b"k" * 32,
    ),
    "empty-key": lambda: signed(header_of("access"), claims_of("access"), key=b""),
    "other-key": lambda: signed(header_of("access"), claims_of("access"), key=b"k" * 32),
    "our-key-cut-short": lambda: signed(header_of("access"), claims_of("access"), key=KEY[:-1]),
    "our-key-as-bytes": lambda: signed(
        header_of("access"), claims_of("access"), key=bytes.fromhex(KEY.decode())
    ),
    "cursors-key": lambda: signed(
        header_of("access"),
        claims_of("access"),
        key=hmac.digest(KEY, b"catalog cursor 1", sha256),
    ),
    "kid-as-key": lambda: signed(header_of("access"), claims_of("access"), key=KID.encode()),
    "kid-twice": lambda: signed(
        f'{{"alg":"HS256","typ":"at+jwt","kid":"x","kid":"{KID}"}}'.encode(),
        claims_of("access"),
        key=b"k" * 32,
    ),
    "nothing": lambda: "..",
    "dot": lambda: ".",
    "word": lambda: "token",
    "null": lambda: "null",
    "undefined": lambda: "undefined",
    "header-alone": lambda: parts()[0],
    "header-and-claims": lambda: ".".join(parts()[:2]),
    "without-signature": lambda: ".".join(parts()[:2]) + ".",
    "without-header": lambda: "." + ".".join(parts()[1:]),
    "without-claims": lambda: f"{parts()[0]}..{parts()[2]}",
    "four-parts": lambda: token_with("access") + ".x",
    "dot-behind": lambda: token_with("access") + ".",
    "dot-before": lambda: "." + token_with("access"),
    "five-parts": lambda: ".".join([*parts(), *parts()[:2]]),
    "another-tokens-signature": lambda: ".".join([*parts()[:2], parts()[2]]),
    "another-tokens-claims": lambda: ".".join(
        [parts()[0], encoded(claims_of("access", sub="2")).decode(), parts()[2]]
    ),
    "another-tokens-header": lambda: ".".join(
        [encoded(header_of("access", kid="x")).decode(), *parts()[1:]]
    ),
    "signature-cut-short": lambda: token_with("access")[:-2],
    "signature-too-long": lambda: token_with("access") + "AAAA",
    "signature-twice": lambda: token_with("access") + parts()[2],
    "quoted": lambda: f'"{token_with("access")}"',
    "in-brackets": lambda: f"<{token_with('access')}>",
    "trailing-comma": lambda: token_with("access") + ",",
    "trailing-semicolon": lambda: token_with("access") + ";",
    "trailing-nul": lambda: token_with("access") + "\0",
    "percent-encoded": lambda: token_with("access").replace(".", "%2E"),
    "not-ascii": lambda: token_with("access") + "\xe9",
    "not-ascii-alone": lambda: "\xff\xfe\xfd",
    "not-base64": lambda: "!!!.???.***",
    "one-letter-parts": lambda: "a.b.c",
    "json": lambda: json.dumps(claims_of("access")).replace(" ", ""),
    "json-serialisation": lambda: json.dumps({"payload": parts()[1]}).replace(" ", ""),
    "deep-header": lambda: f"{encoded(b'[' * 2900).decode()}.e30.x",
    "deep-claims": lambda: f"{parts()[0]}.{encoded(b'[' * 2900).decode()}.x",
    "long-number-in-header": lambda: f"{encoded(b'9' * 2900).decode()}.e30.x",
    "too-long-and-good": lambda: token_with("access", padding="x" * MAX_TOKEN_LENGTH),
    "too-long-by-one": lambda: "x" * (MAX_TOKEN_LENGTH + 1),
    "a-megabyte": lambda: "x" * 1_000_000,
    "a-megabyte-of-dots": lambda: "." * 1_000_000,
}


class TestForgedToken:
    @pytest.mark.parametrize("make", FORGED.values(), ids=FORGED)
    async def test_forged_token_is_refused(self, bare_app: Quart, make: Callable[[], str]) -> None:
        assert await verdict(bare_app, make(), "access") == INVALID
        assert await verdict(bare_app, make(), "refresh") == INVALID

    @each_kind
    async def test_token_with_a_changed_character_is_invalid(
        self, bare_app: Quart, holder: Caller, kind: str
    ) -> None:
        token = str(getattr(holder, f"{kind}_token"))

        for at, character in enumerate(token):
            # Half the alphabet away, so that the difference is not in unused bits alone.
            other = "A" if character == "." else BASE64[BASE64.index(character) ^ 32]

            assert await verdict(bare_app, token[:at] + other + token[at + 1 :], kind) == INVALID

    async def test_token_with_a_missing_character_is_invalid(
        self, bare_app: Quart, holder: Caller
    ) -> None:
        token = str(holder.access_token)

        for at in range(len(token)):
            assert await verdict(bare_app, token[:at] + token[at + 1 :], "access") == INVALID

    @each_kind
    @pytest.mark.parametrize("added", ["=", "==", ".", "-", "A", "AA", "\t", "\xa0", "!", "*", "%"])
    async def test_token_with_added_characters_is_invalid(
        self, bare_app: Quart, holder: Caller, kind: str, added: str
    ) -> None:
        token = str(getattr(holder, f"{kind}_token"))
        header, payload, signature = token.split(".")

        for longer in (
            f"{token}{added}",
            f"{added}{token}",
            f"{header}{added}.{payload}.{signature}",
            f"{header}.{payload}{added}.{signature}",
        ):
            # Blanks after the scheme and at the end of a field belong to HTTP, not to the token.
            if longer.strip(" \t") != token:
                assert await verdict(bare_app, longer, kind) == INVALID

    async def test_reason_is_not_disclosed(self, bare_app: Quart) -> None:
        token = token_with("access", iss="orders")

        answer = await Caller(bare_app).get("/api/products/my", token=token)

        assert answer.json["detail"] == "The token is not valid."
