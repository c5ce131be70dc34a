"""The sockets that a gateway listens on: those that systemd holds for it, or its own."""

import os
import socket
from pathlib import Path

from llamad_gateway.config_file import ConfigError

FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)
LOOPBACK = ("127.", "::1")
BACKLOG = 256


def inherited_sockets() -> list[socket.socket]:
    """Return the sockets that systemd listens on for this process."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return [socket.socket(fileno=FIRST_DESCRIPTOR + n) for n in range(count)]


def open_sockets(listen: tuple[str, ...]) -> list[socket.socket]:
    """Listen on addresses: ``HOST:PORT``, ``[V6]:PORT`` or ``unix:PATH``. Raises ConfigError."""
    sockets: list[socket.socket] = []
    for address in listen:
        try:
            sockets += _open(address)
        except (OSError, ValueError, OverflowError) as error:
            for opened in sockets:
                opened.close()
            raise ConfigError(f"server.listen: {address}: {error}") from None
    if not sockets:
        raise ConfigError("server.listen: names no address")
    return sockets


def _open(address: str) -> list[socket.socket]:
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:"))
        if path.is_socket():
            path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(os.fspath(path))
        path.chmod(0o660)
        listener.listen(BACKLOG)
        return [listener]
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("must be HOST:PORT, [ADDRESS]:PORT or unix:PATH")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    return [
        socket.create_server(place[:2], family=family, backlog=BACKLOG)
        for family, _, _, _, place in found[:1]
    ]


def is_beyond_loopback(listener: socket.socket) -> bool:
    """Whether other machines may reach a socket."""
    if listener.family == socket.AF_UNIX:
        return False
    return not str(listener.getsockname()[0]).startswith(LOOPBACK)


def urls(scheme: str, sockets: list[socket.socket]) -> list[str]:
    """Return where a gateway is reached, for the journal."""
    found = []
    for listener in sockets:
        name = listener.getsockname()
        if listener.family == socket.AF_UNIX:
            found.append(f"unix:{os.fsdecode(name)}")
        else:
            host = f"[{name[0]}]" if listener.family == socket.AF_INET6 else name[0]
            found.append(f"{scheme}://{host}:{name[1]}")
    return found
