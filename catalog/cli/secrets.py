"""``catalog secrets``: .env and the secret files of the containers.

Standard output names what was written, and never a value.
"""

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from secrets import token_hex

import click
from click.core import ParameterSource

from catalog.errors import OperatorError, SettingsInvalid
from catalog.settings import parse_database_url, removed_variables, unknown_variables
from catalog.settings.env_file import read_env_file

ENV_FILE = Path(".env")
FOLDER = Path(".secrets")

ENV_TEXT = """\
# Written by catalog secrets, which does not change it again; .env.example has all that can be set.
DATABASE_URL=mysql+pymysql://catalog:{database_password}@mysql:3306/catalog
JWT_SECRET_KEY={jwt_secret_key}
# The administrator's at the first start; see ADMIN_USERNAME
ADMIN_PASSWORD={admin_password}
# Where nginx is reached: a port, or address:port
CATALOG_HTTP_BIND={http_bind}
"""

MYSQL_PORTS = {None, 3306}

MAX_PORT = 65_535


def published(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Refuse what Compose cannot publish, and an option that would have no effect."""
    address, colon, port = value.rpartition(":")
    is_port = port.isascii() and port.isdigit() and 0 < int(port[:6]) <= MAX_PORT
    if not is_port or (colon and not _is_address(address)):
        raise click.BadParameter("must be a port, or address:port.", ctx=context, param=parameter)
    # A variable has an effect of its own: for Compose it wins over .env.
    is_option = context.get_parameter_source("http_bind") is ParameterSource.COMMANDLINE
    if (
        is_option
        and ENV_FILE.exists()
        and read_env_file(ENV_FILE).get("CATALOG_HTTP_BIND") != value
    ):
        raise click.BadParameter(
            ".env exists and is never changed: set CATALOG_HTTP_BIND in it.",
            ctx=context,
            param=parameter,
        )
    return value


def _is_address(text: str) -> bool:
    is_v6 = text.startswith("[") and text.endswith("]")
    try:
        IPv6Address(text[1:-1]) if is_v6 else IPv4Address(text)
    except ValueError:
        return False
    return True


@click.command()
@click.option(
    "--http-bind",
    callback=published,
    envvar="CATALOG_HTTP_BIND",
    default="127.0.0.1:8080",
    show_default=True,
    help="Where nginx is reached, for a new .env: a port, or address:port.",
)
def secrets(http_bind: str) -> None:
    """Write .env, if there is none, and the secret files of the containers.

    Both are in the current folder. An existing .env is never changed. The files in .secrets follow
    it, and a secret that it does not set is generated once. A second run changes nothing, and one
    beside the first waits for it. Settings of earlier releases in .env are refused.
    """
    with _locked(Path.cwd()):
        _write_all(http_bind)


def _write_all(http_bind: str) -> None:
    if _create(ENV_FILE, _new_env(http_bind), mode=0o600):
        click.echo("Wrote .env with new secrets.")
    values = read_env_file(ENV_FILE)
    # Compose hands only settings to the service, which could not refuse these itself.
    if faults := removed_variables(values):
        raise SettingsInvalid(faults)
    for name in unknown_variables(values):
        click.echo(f"WARNING: {name} in .env is not a setting of this release.", err=True)
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    FOLDER.chmod(0o700)
    for name, value in _contents(values).items():
        _write(FOLDER / name, value)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock: one secret is part of two files, which have to agree."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        # Also releases the lock.
        os.close(handle)


def _new_env(http_bind: str) -> str:
    return ENV_TEXT.format(
        database_password=token_hex(24),
        jwt_secret_key=token_hex(32),
        admin_password=token_hex(12),
        http_bind=http_bind,
    )


def _contents(values: dict[str, str]) -> dict[str, str]:
    """Return the content of each secret file by its name.

    Raises:
        OperatorError: DATABASE_URL does not lead to the MySQL of the stack.
    """
    given = values.get("DATABASE_URL")
    found = _of_database(
        given or f"mysql://catalog:{_kept('mysql_password', 24)}@mysql:3306/catalog"
    )
    valkey_password = _kept("valkey_auth", 24).removeprefix("requirepass ")
    return found | {
        "valkey_auth": f"requirepass {valkey_password}",
        "limits_url": values.get("CATALOG_LIMITS_URL")
        or f"redis://:{valkey_password}@valkey:6379/0",
        "jwt_secret_key": values.get("JWT_SECRET_KEY") or _kept("jwt_secret_key", 32),
        "jwt_previous_secret_keys": values.get("CATALOG_JWT_PREVIOUS_SECRET_KEYS", ""),
        "jwt_private_key": values.get("CATALOG_JWT_PRIVATE_KEY", ""),
        "jwt_previous_public_keys": values.get("CATALOG_JWT_PREVIOUS_PUBLIC_KEYS", ""),
        "admin_password": values.get("ADMIN_PASSWORD") or _kept("admin_password", 12),
        "grafana_admin_password": _kept("grafana_admin_password", 12),
    }


def _of_database(text: str) -> dict[str, str]:
    """Return the secrets of MySQL, whose first start creates the user of the URL."""
    try:
        url = parse_database_url(text)
    except ValueError as fault:
        raise OperatorError(f"DATABASE_URL in .env {fault}.") from None
    if url.host != "mysql" or url.port not in MYSQL_PORTS:
        raise OperatorError(
            "DATABASE_URL in .env does not lead to the MySQL of this stack: "
            "mysql://USER:PASSWORD@mysql:3306/NAME."
        )
    user, password = url.username or "", str(url.password or "")
    is_root = user == "root"
    return {
        "database_url": text,
        "mysql_database": url.database or "",
        # The image of MySQL refuses root as the name of a further user.
        "mysql_user": "" if is_root else user,
        "mysql_password": "" if is_root else password,
        "mysql_root_password": password if is_root else _kept("mysql_root_password", 24),
    }


def _kept(name: str, size: int) -> str:
    """Return the secret that an earlier run has generated, or a new one of ``size`` bytes."""
    try:
        kept = (FOLDER / name).read_text(encoding="utf-8").rstrip("\n")
    except FileNotFoundError:
        kept = ""
    return kept or token_hex(size)


def _write(path: Path, value: str) -> None:
    """Make a file contain a secret, and leave it alone if it does.

    The file can be read by all, because containers run as users of their own; its folder is
    private. A changed secret is written in place: a running container has the file mounted, and
    after a rename it would keep the old one.
    """
    if not _create(path, value, mode=0o644) and path.read_text(encoding="utf-8") != value:
        path.write_text(value, encoding="utf-8")
    if stat.S_IMODE(path.stat().st_mode) != 0o644:
        path.chmod(0o644)


def _create(path: Path, text: str, *, mode: int) -> bool:
    """Create a file with its whole content at once; return False if there is one already."""
    if path.exists():
        return False
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    new = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(handle, mode)
            file.write(text)
            file.flush()
            os.fsync(handle)
        # A link, unlike a rename, fails if another process has created the file meanwhile.
        os.link(new, path)
    except FileExistsError:
        return False
    finally:
        new.unlink()
    return True
