"""Supported kinds of keys: their PEM forms, sizes, ids and public JSON Web Keys."""

import hmac
import re
from dataclasses import dataclass, field
from hashlib import sha256

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_pem_public_key,
)
from jwt import get_algorithm_by_name
from jwt.utils import base64url_encode

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey
PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

SYMMETRIC = "HS256"

MIN_RSA_BITS = 2048
"""Minimum of RFC 7518, section 3.3."""

MAX_RSA_BITS = 4096
"""A signature with a longer key blocks the event loop for tens of milliseconds."""

_FITTING = f"RSA with {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, EC on the curve P-256, or Ed25519"

_PEM_BLOCK = re.compile(r"-----BEGIN ([^-]+)-----.*?-----END \1-----", re.DOTALL)

# The members that define a public key (RFC 7518, section 6; RFC 8037), in the order of RFC 7638.
_DEFINING = ("crv", "e", "kty", "n", "x", "y")


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """Key that verifies tokens.

    Attributes:
        kid: the key's id, which tokens carry; reveals nothing about a secret.
        algorithm: the only algorithm that the key is used with.
        verifier: a secret's bytes, or a public key.
    """

    kid: str
    algorithm: str
    verifier: bytes | PublicKey = field(repr=False)

    @property
    def is_secret(self) -> bool:
        """Whether the key is symmetric, so that it signs as well as verifies."""
        return isinstance(self.verifier, bytes)

    def to_jwk(self) -> dict[str, str]:
        """Return a public key as a JSON Web Key (RFC 7517)."""
        assert not isinstance(self.verifier, bytes)  # noqa: S101 (a secret is never published)
        members = _members_of(self.verifier, self.algorithm)
        return {**members, "use": "sig", "alg": self.algorithm, "kid": self.kid}


@dataclass(frozen=True, slots=True, eq=False)
class SigningKey(Key):
    """Key that also signs tokens.

    Attributes:
        signer: the bytes of the same secret, or the private key.
    """

    signer: bytes | PrivateKey = field(repr=False)


def secret_key(secret: str) -> SigningKey:
    """Return the key of a secret; its id is a keyed hash, which reveals nothing."""
    key = secret.encode()
    # Domain separation: the signing input of a token never contains a space.
    kid = _text_of(hmac.digest(key, b"catalog kid 1", sha256)[:16])
    return SigningKey(kid, SYMMETRIC, verifier=key, signer=key)


def _blocks_of(text: str) -> list[tuple[str, bytes]]:
    """Return the blocks of a PEM text, each with its label (RFC 7468).

    Raises:
        ValueError: a block has no end.
    """
    # Environment files and most dashboards cannot hold a newline, so it may be written as \n.
    text = text.replace("\\r", "").replace("\\n", "\n")
    blocks = [(match[1], match[0].encode(errors="replace")) for match in _PEM_BLOCK.finditer(text)]
    if len(blocks) != text.count("-----BEGIN "):
        raise ValueError("is damaged: a PEM block has no END line")
    return blocks


def load_private_key(text: str) -> SigningKey:
    """Load a private key.

    Raises:
        ValueError: it is unusable; gives the reason.
    """
    blocks = [block for label, block in _blocks_of(text) if label.endswith("PRIVATE KEY")]
    if len(blocks) != 1:
        raise ValueError(
            "must contain one private key in PEM; "
            "generate one with: openssl genpkey -algorithm ed25519"
        )
    try:
        private = load_pem_private_key(blocks[0], password=None)
    except TypeError:
        raise ValueError("is encrypted; decrypt it with: openssl pkey -in KEY -out PLAIN") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is damaged or of an unsupported type") from None
    if not isinstance(private, PrivateKey):
        raise ValueError(f"must be {_FITTING}")
    public = _public_key(private.public_key())
    return SigningKey(public.kid, public.algorithm, public.verifier, signer=private)


def load_public_keys(text: str) -> list[Key]:
    """Load a bundle of public keys.

    Raises:
        ValueError: a key is unusable; gives its number and the reason.
    """
    blocks = _blocks_of(text)
    if not blocks:
        raise ValueError(
            "contains no public key in PEM; extract it with: openssl pkey -in KEY -pubout"
        )
    keys = []
    for number, (label, block) in enumerate(blocks, start=1):
        # A private key would serve as well, but must not be kept in this setting.
        if not label.endswith("PUBLIC KEY"):
            raise ValueError(
                f"must contain only public keys, but block {number} is something else; "
                "extract a public key with: openssl pkey -in KEY -pubout"
            )
        try:
            public = load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError(
                f"has a key that is damaged or of an unsupported type in block {number}"
            ) from None
        try:
            keys.append(_public_key(public))
        except ValueError as fault:
            raise ValueError(f"{fault}: see block {number}") from None
    return keys


def _public_key(key: object) -> Key:
    """Wrap a public key of a supported type and size.

    Raises:
        ValueError: its type or size is not supported.
    """
    match key:
        case RSAPublicKey() if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            algorithm = "RS256"
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            algorithm = "ES256"
        case Ed25519PublicKey():
            algorithm = "EdDSA"
        case _:
            raise ValueError(f"must be {_FITTING}")
    return Key(_thumbprint(key, algorithm), algorithm, verifier=key)


def _members_of(key: PublicKey, algorithm: str) -> dict[str, str]:
    """Return the members of a JSON Web Key that define it, in alphabetical order."""
    jwk = get_algorithm_by_name(algorithm).to_jwk(key, as_dict=True)
    return {name: jwk[name] for name in _DEFINING if name in jwk}


def _thumbprint(key: PublicKey, algorithm: str) -> str:
    """Return the JWK thumbprint of a public key (RFC 7638)."""
    return _text_of(sha256(orjson.dumps(_members_of(key, algorithm))).digest())


def _text_of(raw: bytes) -> str:
    return base64url_encode(raw).decode("ascii")
