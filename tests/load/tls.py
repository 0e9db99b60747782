"""TLS as configured in the shipped nginx."""

from pathlib import Path

from tests.certificates import self_signed
from tests.server.nginx import SHIPPED


def certify(folder: Path) -> None:
    """Write a key and a self-signed certificate where ``listener`` expects them."""
    key, certificate = self_signed("localhost")
    (folder / "privkey.pem").write_bytes(key)
    (folder / "fullchain.pem").write_bytes(certificate)


def listener(folder: Path, port: int) -> str:
    """Return the lines of the shipped ``tls.conf``, with another port and certificate."""
    text = (SHIPPED / "catalog" / "tls.conf").read_text()
    return text.replace("443", f"127.0.0.1:{port}").replace("/etc/nginx/tls", str(folder))
