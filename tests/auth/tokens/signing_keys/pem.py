"""Signing keys for tests, cached because generating an RSA key is slow."""

from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

ALGORITHMS = ("RS256", "ES256", "EdDSA")


@cache
def private_key(algorithm: str, number: int = 1) -> Any:
    """Return a cached private key for an algorithm; each number is a different key."""
    assert number
    match algorithm:
        case "RS256":
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case _:
            return ed25519.Ed25519PrivateKey.generate()


def pem_of(key: Any) -> str:
    """Encode a private key as PEM in PKCS #8, like ``openssl genpkey``."""
    raw: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return raw.decode()


def public_pem_of(key: Any) -> str:
    """Encode the public half of a private key as PEM, like ``openssl pkey -pubout``."""
    raw: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return raw.decode()
