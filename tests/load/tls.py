"""TLS as the shipped nginx speaks it, with a certificate for a day."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.server.nginx import SHIPPED


def certify(folder: Path) -> None:
    """Put a key and a certificate for it where ``listener`` looks for them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "privkey.pem").write_bytes(pem)
    (folder / "fullchain.pem").write_bytes(certificate.public_bytes(Encoding.PEM))


def listener(folder: Path, port: int) -> str:
    """The lines of the shipped ``tls.conf``, with another port and another certificate."""
    text = (SHIPPED / "catalog" / "tls.conf").read_text()
    return text.replace("443", f"127.0.0.1:{port}").replace("/etc/nginx/tls", str(folder))
