"""Accepted kinds of keys, and their ids."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pydantic import SecretStr

from catalog.errors import SettingsInvalid
from tests.auth.tokens.signing_keys.pem import ALGORITHMS, pem_of, private_key, public_pem_of
from tests.auth.tokens.signing_keys.rings import NEW, OLD, each_algorithm, ring
from tests.http.wire import app_without_database


def fault_of(**keys: str) -> str:
    with pytest.raises(SettingsInvalid) as refused:
        ring(**keys)
    (fault,) = refused.value.faults
    return fault


def public_pem_from(**members: str) -> str:
    """Convert a JSON Web Key to a public key in PEM."""
    key: Any = jwt.PyJWK(members).key
    raw: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return raw.decode()


class TestKeyId:
    def test_id_of_a_secret_is_the_same_on_every_instance(self) -> None:
        assert ring().for_access.kid == ring().for_access.kid

    def test_ids_of_different_keys_differ(self) -> None:
        kids = [ring(secret).for_access.kid for secret in (NEW, OLD, NEW + "x", NEW[:-1])]
        for algorithm in ALGORITHMS:
            for number in (1, 2):
                keys = ring(private=pem_of(private_key(algorithm, number)))
                kids.append(keys.for_access.kid)

        assert len(set(kids)) == len(kids)

    def test_id_of_a_secret_is_not_its_plain_hash(self) -> None:
        # A plain hash of the secret may exist elsewhere, for comparison or storage.
        kid = ring().for_access.kid

        assert kid not in jwt.utils.base64url_encode(sha256(NEW.encode()).digest()).decode()
        assert NEW[:4] not in kid

    @pytest.mark.parametrize(
        ("members", "thumbprint"),
        [
            (
                {
                    "kty": "RSA",
                    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aP"
                    "FFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7"
                    "_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvR"
                    "L5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBn"
                    "iIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
                    "e": "AQAB",
                },
                "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
            ),
            (
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                },
                "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            ),
        ],
        ids=["RFC 7638, section 3.1", "RFC 8037, appendix A.3"],
    )
    def test_id_of_a_public_key_is_its_standard_thumbprint(
        self, members: dict[str, str], thumbprint: str
    ) -> None:
        keys = ring(public=public_pem_from(**members))

        assert [key.kid for key in keys.previous] == [thumbprint]

    @pytest.mark.parametrize(("number", "name"), [(379, "x"), (43, "y")])
    def test_coordinate_with_leading_zeros_keeps_its_length(self, number: int, name: str) -> None:
        private = ec.derive_private_key(number, ec.SECP256R1())
        assert getattr(private.public_key().public_numbers(), name) < 2**248

        (key,) = ring(private=pem_of(private)).public_keys()

        assert key == {
            **jwt.algorithms.ECAlgorithm.to_jwk(private.public_key(), as_dict=True),
            **{name: key[name] for name in ("alg", "kid", "use")},
        }
        assert len(key["x"]) == len(key["y"]) == 43


def openssl_style(key: Any, encoding: PrivateFormat = PrivateFormat.PKCS8) -> str:
    raw: bytes = key.private_bytes(Encoding.PEM, encoding, NoEncryption())
    return raw.decode()


TRADITIONAL = PrivateFormat.TraditionalOpenSSL

# Accepted spellings of one key.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda pem: pem,
    "without the last newline": lambda pem: pem.rstrip("\n"),
    "escaped newlines": lambda pem: pem.replace("\n", "\\n"),
    "escaped carriage returns": lambda pem: pem.replace("\n", "\\r\\n"),
    "carriage returns": lambda pem: pem.replace("\n", "\r\n"),
    "quoted": lambda pem: '"' + pem.replace("\n", "\\n") + '"',
    "explained": lambda pem: f"The key of 2026\n\n{pem}\n\nand no other\n",
    "parameters before it": lambda pem: (
        f"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{pem}"
    ),
}

UNFIT: dict[str, Callable[[], Any]] = {
    "RSA with 1024 bits": lambda: rsa.generate_private_key(public_exponent=65537, key_size=1024),  # noqa: S505 (is refused)
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "Ed448": ed448.Ed448PrivateKey.generate,
    "X25519": x25519.X25519PrivateKey.generate,
    "DSA": lambda: dsa.generate_private_key(key_size=1024),  # noqa: S505 (the same)
}


def damaged(pem: str) -> str:
    """Corrupt part of a key in PEM."""
    return pem[:60] + "AAAA" + pem[64:]


ENCRYPTED = private_key("ES256").private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"Geheim")
)


class TestPrivateKey:
    @pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
    @each_algorithm
    def test_key_is_read_in_each_spelling(
        self, algorithm: str, spell: Callable[[str], str]
    ) -> None:
        private = private_key(algorithm)

        assert ring(private=spell(pem_of(private))).for_access.kid == (
            ring(private=pem_of(private)).for_access.kid
        )

    @pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
    def test_traditional_openssl_form_is_accepted(self, algorithm: str) -> None:
        pem = openssl_style(private_key(algorithm), TRADITIONAL)

        assert " PRIVATE KEY-----" in pem
        assert ring(private=pem).for_access.algorithm == algorithm

    @pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT)
    def test_unsupported_key_is_refused(self, make: Callable[[], Any]) -> None:
        assert fault_of(private=pem_of(make())) == (
            "CATALOG_JWT_PRIVATE_KEY must be RSA with 2048 to 4096 bits, EC on the curve P-256, "
            "or Ed25519"
        )

    def test_oversized_rsa_key_is_refused(self) -> None:
        # From openssl genrsa 5120. Larger keys block the event loop; only the size is checked.
        modulus = jwt.utils.base64url_encode((2**5120 - 1).to_bytes(640, "big")).decode()

        fault = fault_of(public=public_pem_from(kty="RSA", n=modulus, e="AQAB"))

        assert "RSA with 2048 to 4096 bits" in fault

    def test_encrypted_key_is_refused(self) -> None:
        assert fault_of(private=ENCRYPTED.decode()) == (
            "CATALOG_JWT_PRIVATE_KEY is encrypted; decrypt it with: openssl pkey -in KEY -out PLAIN"
        )

    @pytest.mark.parametrize(
        "text",
        [
            "x",
            "-----BEGIN PRIVATE KEY-----",
            pem_of(private_key("EdDSA"))[:-30],
            pem_of(private_key("EdDSA"))[30:],
            damaged(pem_of(private_key("RS256"))),
            damaged(pem_of(private_key("ES256"))),
            "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\n\udc80\n-----END PRIVATE KEY-----",
            public_pem_of(private_key("EdDSA")),
            pem_of(private_key("EdDSA")) + pem_of(private_key("EdDSA", 2)),
        ],
        ids=[
            *["text", "beginning", "no end", "no beginning", "damaged RSA", "damaged EC"],
            *["empty", "not UTF-8", "public", "two"],
        ],
    )
    def test_malformed_key_is_refused_without_repeating_it(self, text: str) -> None:
        fault = fault_of(private=text)

        assert fault.startswith("CATALOG_JWT_PRIVATE_KEY ")
        assert len(fault) < 130
        for line in text.splitlines():
            assert "-----" in line or len(line) < 2 or line not in fault

    def test_all_faults_are_reported_at_once(self) -> None:
        with pytest.raises(SettingsInvalid) as refused:
            ring(private="x", public="y")

        assert [fault.split()[0] for fault in refused.value.faults] == [
            "CATALOG_JWT_PRIVATE_KEY",
            "CATALOG_JWT_PREVIOUS_PUBLIC_KEYS",
        ]

    def test_service_does_not_start_with_a_malformed_key(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsInvalid, match="CATALOG_JWT_PRIVATE_KEY"):
            app_without_database(tmp_path, jwt_private_key=SecretStr("x"))


class TestPreviousPublicKeys:
    def test_keys_are_read_one_after_the_other(self) -> None:
        pems = [public_pem_of(private_key(each)) for each in ALGORITHMS]

        for text in ("".join(pems), "\n# Retired in May.\n".join(pems).replace("\n", "\\n")):
            assert [key.algorithm for key in ring(public=text).previous] == list(ALGORITHMS)

    def test_pkcs1_form_is_accepted(self) -> None:
        raw = private_key("RS256").public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)

        assert ring(public=raw.decode()).previous[0].algorithm == "RS256"

    @pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT)
    def test_unsupported_key_is_refused_by_its_number(self, make: Callable[[], Any]) -> None:
        fault = fault_of(public=public_pem_of(private_key("EdDSA")) + public_pem_of(make()))

        assert fault == (
            "CATALOG_JWT_PREVIOUS_PUBLIC_KEYS must be RSA with 2048 to 4096 bits, EC on the curve "
            "P-256, or Ed25519: see block 2"
        )

    @pytest.mark.parametrize(
        "text",
        [
            "x",
            pem_of(private_key("EdDSA")),
            public_pem_of(private_key("EdDSA")) + pem_of(private_key("EdDSA")),
            public_pem_of(private_key("EdDSA"))[:-20],
            public_pem_of(private_key("EdDSA")) + public_pem_of(private_key("ES256"))[:-20],
            damaged(public_pem_of(private_key("ES256"))),
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        ],
        ids=[
            *["text", "private", "public and private", "no end", "no end of the second"],
            *["damaged", "certificate"],
        ],
    )
    def test_malformed_key_is_refused_without_repeating_it(self, text: str) -> None:
        fault = fault_of(public=text)

        assert fault.startswith("CATALOG_JWT_PREVIOUS_PUBLIC_KEYS ")
        assert all(
            "-----" in line or line not in fault for line in text.splitlines() if line != "x"
        )

    def test_private_key_is_reported_as_misplaced(self) -> None:
        pem = public_pem_of(private_key("EdDSA")) + pem_of(private_key("EdDSA"))

        assert "only public keys, but block 2 is something else" in fault_of(public=pem)
