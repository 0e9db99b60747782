"""Listening sockets, opened once by the supervisor for all its workers.

They outlive the workers, so a connection in a dead worker's queue is served by its successor.
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

# Connections that may wait for a worker, per socket. A burst beyond it causes SYN retries of a
# second or more each; the kernel caps it at net.core.somaxconn.
BACKLOG = 2048

UNSENT_BYTES = 128 * 1024
"""Unsent bytes that the kernel buffers per connection. By default it would take megabytes, a copy
for each client of a response that the process holds once for all."""

STALL_SECONDS = 9.0
"""Time after which the kernel drops a client that takes none of the data held for it.

Later than the workers' own time-out of 8 s, because the kernel drops connections without telling
the service.
"""

UNIX_MODE = 0o660
"""Mode of a unix socket: owner and group may connect, so run the proxy in the service's group."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Listening sockets, one for each worker slot.

    Attributes:
        bind: the address, with the port that the kernel chose if port 0 was given.
        sockets: one entry per slot. TCP slots have a socket each, and the kernel spreads
            connections evenly; slots of a unix socket share one.
    """

    bind: Bind
    sockets: Sequence[socket.socket]

    def close(self) -> None:
        """Close this process's copies; workers keep theirs. Idempotent."""
        for listener in self.sockets:
            listener.close()


@contextmanager
def open_listeners(
    bind: Bind, slots: int, *, timeout: float = STALL_SECONDS
) -> Iterator[Listeners]:
    """Open the sockets, and close and remove them at the end of the context.

    Args:
        bind: address to listen on.
        slots: number of workers.
        timeout: seconds after which the kernel drops a client that takes none of the data held for
            it in the kernel (RFC 5482); no timer of the server covers that.

    Raises:
        StartFailed: the address is in use, not local or unknown, or listening is not permitted.
    """
    listeners = _open_unix(bind, bind.path, slots) if bind.path else _open_tcp(bind, slots, timeout)
    try:
        yield listeners
    finally:
        listeners.close()
        if bind.path:
            # A successor may have replaced the closed socket by its own, which must stay.
            with suppress(OSError):
                _remove_stale(bind.path)


def address_fault(bind: Bind) -> str | None:
    """Return why the service could not listen on an address, or None; leaves nothing behind.

    An address in use is no fault: the running service may be the one that uses it.
    """
    try:
        if bind.path is None:
            _probe(*_resolve(bind))
        else:
            _check_unix(bind.path)
    except StartFailed as error:
        return error.detail.rstrip(".")
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return f"Cannot listen on {bind.url}: {error.strerror or error}"
    return None


def _check_unix(path: Path) -> None:
    """Refuse a path at which no unix socket can be made.

    Raises:
        OSError: it names something else than a socket, or a file in a folder that is missing or
            not writable.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError(errno.EEXIST, "the path exists and is not a socket")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, "its folder is missing or not writable")
    # Linux has 108 bytes for the path, one of them for the end.
    if len(os.fsencode(path)) > 107:
        raise OSError(errno.ENAMETOOLONG, "the path has more than 107 bytes")


def _open_tcp(bind: Bind, slots: int, timeout: float) -> Listeners:
    """Bind, but leave ``listen`` to the workers: until one is ready, connections are refused.

    Connections that the kernel accepts before a worker exists would only hide from a load balancer
    that the service still waits for its database.
    """
    family, address = _resolve(bind)
    sockets: list[socket.socket] = []
    try:
        _probe(family, address)
        for _ in range(slots):
            listener = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(listener)
            if family == socket.AF_INET6:
                # "::" means IPv4 too, regardless of net.ipv6.bindv6only.
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            # Accepted connections inherit both options.
            stalled = max(1, int(timeout * 1000))
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stalled)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            # Set for bind, so that connections of a previous run in TIME_WAIT do not block it; then
            # unset, so that a second instance's probe fails from now on and not only once this one
            # listens. hypercorn sets it again just before it listens.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            # All slots use the port that the kernel chose for the first one.
            address = listener.getsockname()
    except OSError as error:
        for listener in sockets:
            listener.close()
        taken = error.errno == errno.EADDRINUSE
        reason = "the port is in use" if taken else error.strerror
        raise StartFailed(f"Cannot listen on {bind.url}: {reason}.") from None
    return Listeners(replace(bind, port=address[1]), sockets)


def _resolve(bind: Bind) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Return the host's first address, preferring IPv4, which every client of localhost tries."""
    try:
        found = socket.getaddrinfo(bind.host, bind.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise StartFailed(f"Cannot listen on {bind.url}: {reason}.") from None
    family, _, _, _, address = min(found, key=lambda item: item[0] != socket.AF_INET)
    return family, address  # type: ignore[return-value]  # typeshed: IPv6 may be compiled out


def _probe(family: socket.AddressFamily, address: tuple[str, int]) -> None:
    """Fail if another process listens on the address.

    SO_REUSEPORT would let a second instance of the same user share the port silently, and split the
    requests between both.
    """
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _open_unix(bind: Bind, path: Path, slots: int) -> Listeners:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # A umask, because chmod would leave a moment with the wrong mode.
    umask = os.umask(0o777 & ~UNIX_MODE)
    try:
        _remove_stale(path)
        listener.bind(str(path))
        # Listens at once, unlike TCP: a second instance would take a refusing socket for stale.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise StartFailed(f"Cannot listen on {bind.url}: {error.strerror or error}.") from None
    finally:
        os.umask(umask)
    return Listeners(bind, [listener] * slots)


def _remove_stale(path: Path) -> None:
    """Remove a stale socket, and nothing else.

    Raises:
        OSError: a process listens on it, or it is not a socket.
    """
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError(errno.EEXIST, "the path exists and is not a socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            # Non-blocking, because connect would wait on a full backlog, which also means in use.
            probe.setblocking(False)
            probe.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return
    except BlockingIOError:
        pass
    raise OSError(errno.EADDRINUSE, "the socket is in use")
