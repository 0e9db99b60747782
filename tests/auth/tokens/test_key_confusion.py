"""Tokens signed with what is public about a key, or by another algorithm than that of the key."""

import json
from hashlib import sha256, sha384, sha512
from typing import Any, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import SecretStr
from quart import Quart

from catalog.auth.guards import tokens
from catalog.auth.tokens.jwt import Kind
from catalog.errors import TokenInvalid
from tests.auth.tokens.handmade import (
    ABSENT,
    BASE64,
    KID,
    KINDS,
    claims_of,
    encoded,
    header_of,
    signed,
    token_with,
)
from tests.auth.tokens.signing_keys.pem import ALGORITHMS, pem_of, private_key, public_pem_of
from tests.auth.tokens.verdicts import GOOD, INVALID, WRONG_KIND, verdict
from tests.http.wire import app_without_database, holder_of_tokens


def der_of(key: Any) -> bytes:
    raw: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return raw


def jwk_of(key: Any) -> dict[str, Any]:
    public = key.public_key()
    algorithm: Any = {
        "RS256": jwt.algorithms.RSAAlgorithm,
        "ES256": jwt.algorithms.ECAlgorithm,
        "EdDSA": jwt.algorithms.OKPAlgorithm,
    }[next(each for each in ALGORITHMS if private_key(each) is key)]
    members: dict[str, Any] = algorithm.to_jwk(public, as_dict=True)
    return members


def published(key: Any) -> list[bytes]:
    """Return the public forms of a key, each of which might be mistaken for a secret."""
    pem, jwk = public_pem_of(key), jwk_of(key)
    members = {name: jwk[name] for name in sorted(jwk) if name not in {"key_ops", "use"}}
    return [
        pem.encode(),
        pem.rstrip("\n").encode(),
        pem.replace("\n", "\\n").encode(),
        "".join(pem.splitlines()[1:-1]).encode(),
        der_of(key),
        json.dumps(jwk).encode(),
        json.dumps(members, separators=(",", ":")).encode(),
        *(str(value).encode() for value in jwk.values()),
    ]


class Signers(NamedTuple):
    """An app that signs access tokens with a private key, and the ids of its keys."""

    app: Quart
    algorithm: str
    token: str
    public_kid: str
    secret_kid: str


@pytest.fixture(scope="class", params=ALGORITHMS)
async def signers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Signers:
    pem = SecretStr(pem_of(private_key(request.param)))
    app = app_without_database(tmp_path_factory.mktemp("signers"), jwt_private_key=pem)
    token = str((await holder_of_tokens(app)).access_token)
    kid = jwt.get_unverified_header(token)["kid"]
    return Signers(app, request.param, token, kid, KID)


EVERY_ALGORITHM = (
    *("HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES256K", "ES384", "ES512", "EdDSA", "Ed25519", "none", "None", "NONE", ""),
)


class TestKeyConfusion:
    """Key confusion: an attacker knows the public key and uses it as another kind of key."""

    async def test_issued_token_is_accepted(self, signers: Signers) -> None:
        header = jwt.get_unverified_header(signers.token)

        assert header == {"alg": signers.algorithm, "typ": "at+jwt", "kid": signers.public_kid}
        assert await verdict(signers.app, signers.token, "access") == GOOD
        assert await verdict(signers.app, signers.token, "refresh") == WRONG_KIND

    async def test_public_key_is_not_accepted_as_a_secret(self, signers: Signers) -> None:
        for key in published(private_key(signers.algorithm)):
            for kid in (signers.public_kid, signers.secret_kid):
                for algorithm in ("HS256", "HS384", "HS512", signers.algorithm):
                    digest = {"HS384": sha384, "HS512": sha512}.get(algorithm, sha256)
                    header = header_of("access", kid=kid, alg=algorithm)
                    token = signed(header, claims_of("access"), key=key, digest=digest)

                    assert await verdict(signers.app, token, "access") == INVALID

    @pytest.mark.parametrize("algorithm", EVERY_ALGORITHM)
    async def test_algorithm_cannot_be_chosen_by_the_client(
        self, signers: Signers, algorithm: str
    ) -> None:
        _, claims, signature = signers.token.split(".")
        for kid in (signers.public_kid, signers.secret_kid):
            header = encoded(header_of("access", kid=kid, alg=algorithm)).decode()
            for forged in (f"{header}.{claims}.", f"{header}.{claims}.{signature}"):
                # The header's bytes differ from the signed ones, so the signature is invalid.
                assert await verdict(signers.app, forged, "access") == INVALID
            # Signed with the right secret, so that only key id and algorithm are wrong.
            if (kid, algorithm) != (signers.secret_kid, "HS256"):
                token = token_with("access", {"kid": kid, "alg": algorithm})
                assert await verdict(signers.app, token, "access") == INVALID

    async def test_private_key_signs_no_refresh_token(self, signers: Signers) -> None:
        for kid in (signers.public_kid, signers.secret_kid):
            for kind in KINDS:
                token = jwt.encode(
                    claims_of("refresh"),
                    private_key(signers.algorithm),
                    signers.algorithm,
                    headers=header_of(kind, kid=kid, alg=ABSENT),
                )

                assert await verdict(signers.app, token, "refresh") == INVALID

    async def test_other_key_of_the_same_algorithm_is_refused(self, signers: Signers) -> None:
        for kid in (signers.public_kid, signers.secret_kid):
            token = jwt.encode(
                claims_of("access"),
                private_key(signers.algorithm, 2),
                signers.algorithm,
                headers=header_of("access", kid=kid, alg=ABSENT),
            )

            assert await verdict(signers.app, token, "access") == INVALID

    @pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
    async def test_key_in_the_header_is_not_used(self, signers: Signers, name: str) -> None:
        stranger = private_key(signers.algorithm)
        brought = {
            "jwk": jwk_of(stranger),
            "jku": "http://127.0.0.1:9/keys",
            "x5u": "http://127.0.0.1:9/chain",
            "x5c": [encoded(der_of(stranger)).decode()],
        }
        other = private_key(signers.algorithm, 2)
        for kid in (signers.public_kid, signers.secret_kid, "brought", ABSENT):
            header = header_of("access", kid=kid, alg=ABSENT, **{name: brought[name]})
            token = jwt.encode(claims_of("access"), other, signers.algorithm, headers=header)

            assert await verdict(signers.app, token, "access") == INVALID

    @pytest.mark.parametrize("crit", [["kid"], ["exp"], ["b64"], [], "kid", None, ["x"]], ids=repr)
    async def test_critical_extensions_are_refused(self, signers: Signers, crit: object) -> None:
        header = header_of("access", kid=signers.public_kid, alg=ABSENT, crit=crit, x=1)
        key = private_key(signers.algorithm)
        token = jwt.encode(claims_of("access"), key, signers.algorithm, headers=header)

        assert await verdict(signers.app, token, "access") == INVALID

    @given(st.data())
    def test_token_has_one_spelling(self, signers: Signers, data: st.DataObject) -> None:
        manager, token = tokens(signers.app), signers.token
        at = data.draw(st.integers(0, len(token)), "at")
        taken = data.draw(st.integers(0, 1), "taken")
        put = data.draw(st.sampled_from(BASE64) | st.characters(max_codepoint=255) | st.just(""))
        other = token[:at] + put + token[at + taken :]
        assume(other != token)

        with pytest.raises(TokenInvalid):
            manager.decode(other, Kind.ACCESS)

    def test_unused_bits_of_a_part_must_be_zero(self, signers: Signers) -> None:
        manager, token = tokens(signers.app), signers.token

        for end, character in enumerate(f"{token}."):
            if character == ".":
                for other in BASE64.replace(token[end - 1], ""):
                    with pytest.raises(TokenInvalid):
                        manager.decode(token[: end - 1] + other + token[end:], Kind.ACCESS)

    async def test_token_with_a_changed_character_is_invalid(self, signers: Signers) -> None:
        token = signers.token

        for at in range(0, len(token), 3):
            other = "A" if token[at] == "." else BASE64[BASE64.index(token[at]) ^ 32]
            changed_token = token[:at] + other + token[at + 1 :]

            assert await verdict(signers.app, changed_token, "access") == INVALID
