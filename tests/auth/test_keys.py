"""Keys: their names, what is taken for one, what is derived from them, and what is public."""

import json
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
from quart import Quart
from sqlalchemy import URL

from catalog.auth.keys import KEYS, KeyRing
from catalog.errors import SettingsInvalid
from catalog.settings import Settings
from tests.auth.keys import ALGORITHMS, pem_of, private_key, public_pem_of
from tests.engines import SECRET, settings_for
from tests.http.wire import app_without_database
from tests.support import Caller

NOWHERE = URL.create("sqlite+aiosqlite", database="/nonexistent/catalog.db")
NEW = "4c9b0e8ffd2f60a3f6d63b2d7b6f1f2c8a55d1c2b7e94f0a"
OLD = "b1946ac92492d2347c6235b4d2611184f9f0a8a5d2c0d9be"

each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def settings_with(
    *, private: str | None = None, public: str | None = None, previous: tuple[str, ...] = ()
) -> Settings:
    return settings_for(
        NOWHERE,
        jwt_private_key=None if private is None else SecretStr(private),
        jwt_previous_public_keys=None if public is None else SecretStr(public),
        jwt_previous_secret_keys=tuple(SecretStr(each) for each in previous),
    )


def ring(secret: str = NEW, **keys: Any) -> KeyRing:
    return KeyRing(settings_with(**keys), secret)


def fault_of(**keys: str) -> str:
    with pytest.raises(SettingsInvalid) as refused:
        ring(**keys)
    (fault,) = refused.value.faults
    return fault


def public_pem_from(**members: str) -> str:
    """A public key that is given as a JSON Web Key."""
    key: Any = jwt.PyJWK(members).key
    raw: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return raw.decode()


class TestNames:
    def test_a_secret_has_the_same_on_every_instance(self) -> None:
        assert ring().for_access.kid == ring().for_access.kid

    def test_no_two_keys_share_one(self) -> None:
        kids = [ring(secret).for_access.kid for secret in (NEW, OLD, NEW + "x", NEW[:-1])]
        for algorithm in ALGORITHMS:
            for number in (1, 2):
                keys = ring(private=pem_of(private_key(algorithm, number)))
                kids.append(keys.for_access.kid)

        assert len(set(kids)) == len(kids)

    def test_that_of_a_secret_is_no_plain_hash_of_it(self) -> None:
        # Somebody may have hashed the secret elsewhere, to compare or to store it.
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
    def test_that_of_a_public_key_is_the_standards(
        self, members: dict[str, str], thumbprint: str
    ) -> None:
        keys = ring(public=public_pem_from(**members))

        assert [key.kid for key in keys.previous] == [thumbprint]

    @pytest.mark.parametrize(("number", "name"), [(379, "x"), (43, "y")])
    def test_a_coordinate_that_begins_with_zeros_keeps_them(self, number: int, name: str) -> None:
        private = ec.derive_private_key(number, ec.SECP256R1())
        assert getattr(private.public_key().public_numbers(), name) < 2**248

        (key,) = ring(private=pem_of(private)).public_keys()

        assert key == {
            **jwt.algorithms.ECAlgorithm.to_jwk(private.public_key(), as_dict=True),
            **{name: key[name] for name in ("alg", "kid", "use")},
        }
        assert len(key["x"]) == len(key["y"]) == 43


class TestRing:
    def test_a_secret_alone_signs_everything(self) -> None:
        keys = ring()

        assert keys.for_access is keys.for_refresh
        assert (keys.for_access.algorithm, keys.for_access.signer) == ("HS256", NEW.encode())
        assert keys.previous == []
        assert keys.public_keys() == []

    @each_algorithm
    def test_a_private_key_signs_access_tokens_only(self, algorithm: str) -> None:
        keys = ring(private=pem_of(private_key(algorithm)))

        assert keys.for_access.algorithm == algorithm
        assert not keys.for_access.is_secret
        assert keys.for_refresh.algorithm == "HS256"
        assert keys.previous == []

    def test_every_key_is_found_by_its_name_and_no_other(self) -> None:
        public = "".join(public_pem_of(private_key(each, 2)) for each in ALGORITHMS)
        keys = ring(private=pem_of(private_key("ES256")), public=public, previous=(OLD,))

        for key in (keys.for_access, keys.for_refresh, *keys.previous):
            assert keys.find(key.kid) is key
        assert [key.algorithm for key in keys.previous] == ["HS256", *ALGORITHMS]
        for kid in ("", "x", keys.for_access.kid.lower(), f"{keys.for_access.kid} ", NEW):
            assert keys.find(kid) is None

    def test_current_and_previous_at_once_is_current(self) -> None:
        private = private_key("EdDSA")
        keys = ring(private=pem_of(private), public=public_pem_of(private), previous=(NEW, OLD))

        assert keys.secrets == (NEW.encode(), OLD.encode())
        assert [key.kid for key in keys.previous] == [ring(OLD).for_access.kid]
        assert keys.find(keys.for_access.kid) is keys.for_access
        assert len(keys.public_keys()) == 1

    def test_nothing_secret_is_in_what_is_printed(self) -> None:
        settings = settings_with(
            private=pem_of(private_key("EdDSA")),
            public=public_pem_of(private_key("ES256")),
            previous=(OLD,),
        )
        keys = KeyRing(settings, NEW)
        shown = repr([settings, keys, keys.for_access, keys.for_refresh, keys.previous])

        assert keys.for_access.kid in shown
        for word in (NEW, OLD, "PRIVATE", pem_of(private_key("EdDSA")).splitlines()[1]):
            assert word not in shown


class TestDerive:
    def test_instances_that_know_the_secret_agree_whatever_is_current(self) -> None:
        before, during = ring(OLD), ring(NEW, previous=(OLD,))
        kid = before.for_refresh.kid

        assert before.derive(kid, "successor", b"id") == during.derive(kid, "successor", b"id")

    def test_secret_label_and_data_all_matter(self) -> None:
        keys = ring(NEW, previous=(OLD,))
        new, old = keys.for_refresh.kid, keys.previous[0].kid
        derived = {
            keys.derive(kid, label, data)
            for kid in (new, old)
            for label in ("", "a", "ab", "b")
            for data in (b"", b"b", b"bc", b"\0", b"a b")
        }

        assert len(derived) == 2 * 4 * 5
        assert {len(each) for each in derived} == {32}

    def test_there_is_nothing_to_derive_from_a_public_key_or_none(self) -> None:
        keys = ring(private=pem_of(private_key("ES256")))

        for kid in (keys.for_access.kid, "unknown", ""):
            with pytest.raises(KeyError):
                keys.derive(kid, "successor", b"id")


def openssl_style(key: Any, encoding: PrivateFormat = PrivateFormat.PKCS8) -> str:
    raw: bytes = key.private_bytes(Encoding.PEM, encoding, NoEncryption())
    return raw.decode()


TRADITIONAL = PrivateFormat.TraditionalOpenSSL

# How one key may be written.
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
    """A key with a part of it replaced."""
    return pem[:60] + "AAAA" + pem[64:]


ENCRYPTED = private_key("ES256").private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"Geheim")
)


class TestPrivateKey:
    @pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
    @each_algorithm
    def test_it_may_be_written_in_several_ways(
        self, algorithm: str, spell: Callable[[str], str]
    ) -> None:
        private = private_key(algorithm)

        assert ring(private=spell(pem_of(private))).for_access.kid == (
            ring(private=pem_of(private)).for_access.kid
        )

    @pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
    def test_it_may_have_the_older_form(self, algorithm: str) -> None:
        pem = openssl_style(private_key(algorithm), TRADITIONAL)

        assert " PRIVATE KEY-----" in pem
        assert ring(private=pem).for_access.algorithm == algorithm

    @pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT)
    def test_one_that_does_not_fit_is_refused(self, make: Callable[[], Any]) -> None:
        assert fault_of(private=pem_of(make())) == (
            "CATALOG_JWT_PRIVATE_KEY must be RSA with 2048 to 4096 bits, EC on the curve P-256, "
            "or Ed25519"
        )

    def test_one_that_would_hold_up_the_event_loop_is_refused(self) -> None:
        # Made by: openssl genrsa 5120; only its size is looked at.
        modulus = jwt.utils.base64url_encode((2**5120 - 1).to_bytes(640, "big")).decode()

        fault = fault_of(public=public_pem_from(kty="RSA", n=modulus, e="AQAB"))

        assert "RSA with 2048 to 4096 bits" in fault

    def test_an_encrypted_one_is_refused(self) -> None:
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
    def test_what_is_none_is_refused_without_repeating_it(self, text: str) -> None:
        fault = fault_of(private=text)

        assert fault.startswith("CATALOG_JWT_PRIVATE_KEY ")
        assert len(fault) < 130
        for line in text.splitlines():
            assert "-----" in line or len(line) < 2 or line not in fault

    def test_all_faults_are_told_at_once(self) -> None:
        with pytest.raises(SettingsInvalid) as refused:
            ring(private="x", public="y")

        assert [fault.split()[0] for fault in refused.value.faults] == [
            "CATALOG_JWT_PRIVATE_KEY",
            "CATALOG_JWT_PREVIOUS_PUBLIC_KEYS",
        ]

    def test_the_service_does_not_start_with_what_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsInvalid, match="CATALOG_JWT_PRIVATE_KEY"):
            app_without_database(tmp_path, jwt_private_key=SecretStr("x"))


class TestPreviousPublicKeys:
    def test_they_stand_one_after_the_other(self) -> None:
        pems = [public_pem_of(private_key(each)) for each in ALGORITHMS]

        for text in ("".join(pems), "\n# Retired in May.\n".join(pems).replace("\n", "\\n")):
            assert [key.algorithm for key in ring(public=text).previous] == list(ALGORITHMS)

    def test_the_older_form_is_understood(self) -> None:
        raw = private_key("RS256").public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)

        assert ring(public=raw.decode()).previous[0].algorithm == "RS256"

    @pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT)
    def test_one_that_does_not_fit_is_refused_by_its_number(self, make: Callable[[], Any]) -> None:
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
            damaged(public_pem_of(private_key("ES256"))),
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        ],
        ids=["text", "private", "public and private", "no end", "damaged", "certificate"],
    )
    def test_what_is_none_is_refused_without_repeating_it(self, text: str) -> None:
        fault = fault_of(public=text)

        assert fault.startswith("CATALOG_JWT_PREVIOUS_PUBLIC_KEYS ")
        assert all(
            "-----" in line or line not in fault for line in text.splitlines() if line != "x"
        )


PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
PATH = "/.well-known/jwks.json"


def app_with(folder: Path, **keys: Any) -> Quart:
    given = {
        name: SecretStr(each) if isinstance(each, str) else each for name, each in keys.items()
    }
    return app_without_database(folder, **given)


class TestPublished:
    async def test_there_are_none_while_a_secret_signs(self, stranger: Caller) -> None:
        answer = await stranger.get(PATH)

        assert (answer.status_code, answer.body) == (200, b'{"keys":[]}')
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "public, max-age=300"

    async def test_who_has_them_already_gets_304(self, stranger: Caller) -> None:
        etag = (await stranger.get(PATH)).headers["ETag"]

        again = await stranger.get(PATH, headers={"If-None-Match": etag})

        assert (again.status_code, again.body) == (304, b"")
        assert again.headers["Cache-Control"] == "public, max-age=300"

    async def test_the_current_one_comes_first_and_none_is_private(self, tmp_path: Path) -> None:
        public = "".join(public_pem_of(private_key(each, 2)) for each in ALGORITHMS)
        documents, etags = [], set()
        for algorithm in ALGORITHMS:
            app = app_with(
                tmp_path,
                jwt_private_key=pem_of(private_key(algorithm)),
                jwt_previous_public_keys=public,
                jwt_previous_secret_keys=(SecretStr(OLD),),
            )
            answer = await Caller(app).get(PATH)
            documents.append(answer.json["keys"])
            etags.add(answer.headers["ETag"])
            assert SECRET.get_secret_value() not in answer.body.decode()

            kid = app.extensions[KEYS].for_access.kid
            assert [key["alg"] for key in answer.json["keys"]] == [algorithm, *ALGORITHMS]
            assert answer.json["keys"][0]["kid"] == kid

        assert len(etags) == 3
        expected = {"use", "kid", "kty", "alg"}
        own = {"RSA": {"n", "e"}, "EC": {"crv", "x", "y"}, "OKP": {"crv", "x"}}
        for key in (key for document in documents for key in document):
            assert set(key) == expected | own[key["kty"]]
            assert not set(key) & PRIVATE_MEMBERS

    async def test_each_is_named_by_its_thumbprint(self, tmp_path: Path) -> None:
        app = app_with(tmp_path, jwt_private_key=pem_of(private_key("ES256")))

        (key,) = (await Caller(app).get(PATH)).json["keys"]

        members = {name: key[name] for name in ("crv", "kty", "x", "y")}
        text = json.dumps(members, sort_keys=True, separators=(",", ":"))
        digest = sha256(text.encode()).digest()
        assert key["kid"] == jwt.utils.base64url_encode(digest).decode()
