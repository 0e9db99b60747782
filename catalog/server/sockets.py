"""The sockets that the service listens on: opened once, by the supervisor, for all its workers.

They outlive every worker, so a connection that waits for a worker that died is served by the one
that comes after it.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from catalog.errors import StartFailed
from catalog.settings import Bind

# Connections that may wait for a worker, per socket. A burst beyond it meets SYN retries, a second
# or more each; the kernel lowers it to net.core.somaxconn.
BACKLOG = 2048

UNSENT_BYTES = 128 * 1024
"""What the kernel takes of an answer beyond what is on its way. It would take megabytes, a copy for
each client, where the process holds one for all."""

UNIX_MODE = 0o660
"""Owner and group may connect to a unix socket: run the proxy in the service's group."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Listening sockets, one for each worker slot.

    Attributes:
        bind: where they listen, with the port that port 0 became.
        sockets: by slot. TCP slots have one each and the kernel spreads connections evenly; slots
            of a unix socket share one.
    """

    bind: Bind
    sockets: Sequence[socket.socket]

    def close(self) -> None:
        """Close this process's copies; workers keep theirs. Idempotent."""
        for listener in self.sockets:
            listener.close()


@contextmanager
def open_listeners(bind: Bind, slots: int, *, timeout: float) -> Iterator[Listeners]:
    """Open the sockets, and leave nothing of them behind.

    Args:
        bind: where to listen.
        slots: how many workers there are.
        timeout: seconds for which a client may take nothing of what the kernel holds for it
            (RFC 5482); no timer of the server's looks at that.

    Raises:
        StartFailed: the address is taken, not ours or unknown, or we may not listen there.
    """
    listeners = _open_unix(bind, bind.path, slots) if bind.path else _open_tcp(bind, slots, timeout)
    try:
        yield listeners
    finally:
        listeners.close()
        if bind.path:
            # Since nobody answered on it any more, a successor may have put its own there.
            with suppress(OSError):
                _remove_stale(bind.path)


def _open_tcp(bind: Bind, slots: int, timeout: float) -> Listeners:
    """Bind, but leave ``listen`` to the workers: until one is ready, clients are refused at once.

    A connection accepted by the kernel on behalf of nobody would only hide from a load balancer
    that the service is still waiting for its database.
    """
    family, address = _resolve(bind)
    sockets: list[socket.socket] = []
    try:
        _probe(family, address)
        for _ in range(slots):
            listener = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(listener)
            if family == socket.AF_INET6:
                # "::" means every address, whatever net.ipv6.bindv6only says.
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            # Handed on to the connections that it accepts.
            stalled = max(1, int(timeout * 1000))
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stalled)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            # On for bind, so that connections of a previous run in TIME_WAIT do not matter; off
            # again, so that the probe of a second instance fails from now on and not only once
            # this one listens. hypercorn turns it back on just before it listens.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            # Port 0 becomes the port that the first slot got.
            address = listener.getsockname()
    except OSError as error:
        for listener in sockets:
            listener.close()
        taken = error.errno == errno.EADDRINUSE
        reason = "the port is taken" if taken else error.strerror
        raise StartFailed(f"Cannot listen on {bind.url}: {reason}.") from None
    return Listeners(replace(bind, port=address[1]), sockets)


def _resolve(bind: Bind) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """The first address of the host, preferring IPv4, which every client of localhost tries."""
    try:
        found = socket.getaddrinfo(bind.host, bind.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise StartFailed(f"Cannot listen on {bind.url}: {reason}.") from None
    family, _, _, _, address = min(found, key=lambda item: item[0] != socket.AF_INET)
    return family, address  # type: ignore[return-value]  # typeshed: IPv6 may be compiled out


def _probe(family: socket.AddressFamily, address: tuple[str, int]) -> None:
    """Fail where someone else listens.

    SO_REUSEPORT would let a second instance of the same user share the port without a word, and
    half of the requests would go to each.
    """
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _open_unix(bind: Bind, path: Path, slots: int) -> Listeners:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode must hold from the first moment, and chmod would come after it.
    umask = os.umask(0o777 & ~UNIX_MODE)
    try:
        _remove_stale(path)
        listener.bind(str(path))
        # Unlike TCP at once: a second instance would take a socket that refuses for a stale one.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise StartFailed(f"Cannot listen on {bind.url}: {error.strerror or error}.") from None
    finally:
        os.umask(umask)
    return Listeners(bind, [listener] * slots)


def _remove_stale(path: Path) -> None:
    """Remove the socket of a service that is gone, and nothing else.

    Raises:
        OSError: someone answers on it, or it is no socket.
    """
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError(errno.EEXIST, "a file that is not a socket is in the way")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            # A full backlog is an answer too: connect would wait, so do not block on it.
            probe.setblocking(False)
            probe.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return
    except BlockingIOError:
        pass
    raise OSError(errno.EADDRINUSE, "the socket is taken")
