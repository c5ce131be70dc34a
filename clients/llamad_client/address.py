"""Where the service listens, or several do, and why they may not be reachable there.

Owns the search for the address and the diagnosis of a connection that failed. It connects only to
find out why a call could not. Several services are called boards here, because each has one.
"""

import grp
import os
import pwd
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from llamad_client.errors import NoPermission, NotRunning, Refused, ServiceUnreachable

DEFAULT_SOCKET = Path("/run/llamad/llamad.sock")
ENVIRONMENT = "LLAMAD_SOCKET"
MAX_PATH_BYTES = 107  # sun_path of unix(7), without its terminator

DEFAULT_TLS_PORT = 8443
# One that was killed hangs up as one that is too busy does; who connects again finds it gone. Two
# connections may end so: one that it had accepted, one that waited while its socket was closed.
_PROBES = 3
_TRIES_OF_A_NAME = 3  # how many boards a name stands for is known to gRPC alone

Where = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A socket's path, ``unix:PATH`` or ``https://HOST:PORT``; several in a list, or with commas."""


@dataclass(frozen=True, slots=True)
class Address:
    """Sockets, or one name whose TLS port is called; the name may stand for several boards."""

    sockets: tuple[Path, ...]
    tls: str = ""  # HOST:PORT; empty for sockets

    def __str__(self) -> str:
        return f"https://{self.tls}" if self.tls else ",".join(map(str, self.sockets))

    @property
    def target(self) -> str:
        """The gRPC target."""
        if self.tls:
            return f"dns:{self.tls}"
        return "unix:" + ",".join(quote(os.fsencode(path)) for path in self.sockets)

    @property
    def tries(self) -> int:
        """How often a call is begun, as long as no board has begun to answer it."""
        return _TRIES_OF_A_NAME if self.tls else len(self.sockets)

    def require_one(self, what: str) -> None:
        """Raise Refused for a call that is about what one service has, where there are several."""
        if len(self.sockets) > 1:
            raise Refused(
                "ONE_SERVICE_NEEDED",
                f"{what}: each service has its own, and {len(self.sockets)} are given: name one"
                f" of {self}",
            )


def read_address(given: Where | None = None) -> Address:
    """Return where to call: what is given, or $LLAMAD_SOCKET says, or the default socket.

    Raises ServiceUnreachable for an address that cannot be one.
    """
    words = _words(given)
    if len(words) == 1 and words[0].startswith("https://"):
        return Address((), _tls_name(words[0]))
    return Address(tuple(map(_socket, words)))


def each_address(given: Where | None = None) -> list[str]:
    """Return the addresses one by one, each once: for a program with a client for each.

    Raises ServiceUnreachable for one that cannot be an address.
    """
    return list(dict.fromkeys(str(read_address([word])) for word in _words(given)))


def _words(given: Where | None) -> list[str]:
    given = given or os.environ.get(ENVIRONMENT) or DEFAULT_SOCKET
    if isinstance(given, str):
        return [word.strip() for word in given.split(",") if word.strip()]
    return [os.fspath(one) for one in ([given] if isinstance(given, os.PathLike) else given)]


def _tls_name(url: str) -> str:
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port or DEFAULT_TLS_PORT
    except ValueError as error:
        raise ServiceUnreachable("ADDRESS_INVALID", f"address {url}: {error}") from None
    if not name or parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        message = f"address {url}: is not https://HOST:PORT"
        raise ServiceUnreachable("ADDRESS_INVALID", message)
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _socket(word: str) -> Path:
    if "://" in word and not word.startswith("unix://"):
        raise ServiceUnreachable(
            "ADDRESS_INVALID",
            f"address {word}: is not unix:PATH or https://HOST:PORT; several together are sockets,"
            " or one https:// name that has several addresses",
        )
    path = Path(word.removeprefix("unix:") if word.startswith("unix:") else word).absolute()
    name = os.fsencode(path)
    if len(name) > MAX_PATH_BYTES:
        message = f"socket {path}: path has {len(name)} bytes, at most {MAX_PATH_BYTES}"
        raise ServiceUnreachable("SOCKET_PATH_INVALID", message)
    return path


def unreachable(address: Address, otherwise: str) -> ServiceUnreachable:
    """Return why nobody answered at the address; ``otherwise`` is what gRPC says.

    Of several boards it names those that cannot be reached now.
    """
    if address.tls:
        message = f"llamad cannot be reached at {address}: {otherwise}"
        return ServiceUnreachable("CONNECTION_LOST", message)
    found = [diagnose(path, otherwise) for path in address.sockets]
    if len(found) == 1:
        return found[0]
    missing = [one for one in found if one.reason != "CONNECTION_LOST"]
    said = "; ".join(one.message for one in missing)
    if len(missing) == len(found):
        kind = type(missing[0]) if len({*map(type, missing)}) == 1 else ServiceUnreachable
        return kind(missing[0].reason, f"none of {len(found)} services can be reached: {said}")
    if not missing:
        said = f"{address}: {otherwise}"
    message = f"the connection to one of {len(found)} services was lost: {said}"
    return ServiceUnreachable("CONNECTION_LOST", message)


def diagnose(path: Path, otherwise: str) -> ServiceUnreachable:
    """Return why the service at path cannot be reached; ``otherwise`` when it can be now."""
    try:
        for tries_left in reversed(range(_PROBES)):
            if _speaks(path):
                break
            if not tries_left:
                raise ConnectionResetError
    except (TimeoutError, BlockingIOError):  # the latter: its queue of connections is full
        return ServiceUnreachable(
            "NO_ANSWER", f"llamad does not answer on {path}{_advice(path, 'see', 'status')}"
        )
    except ConnectionResetError:
        return ServiceUnreachable(
            "TOO_MANY_CONNECTIONS",
            f"llamad accepts no more connections on {path}: too many are open, try again later",
        )
    except FileNotFoundError:
        return NotRunning(
            "NOT_RUNNING",
            f"llamad is not running: no socket {path}{_advice(path, 'start it', 'start')}",
        )
    except ConnectionRefusedError:
        return NotRunning(
            "NOT_RUNNING",
            f"llamad is not running: nobody listens on {path}{_advice(path, 'start it', 'start')}",
        )
    except PermissionError:
        return NoPermission("NO_PERMISSION", f"no permission to use {path}{_group_hint(path)}")
    except OSError as error:
        return NotRunning("NOT_RUNNING", f"llamad cannot be reached at {path}: {error}")
    return ServiceUnreachable("CONNECTION_LOST", f"the connection to llamad was lost: {otherwise}")


def _speaks(path: Path) -> bool:
    """Whether a service speaks first, as each does, or hangs up. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        probe.connect(os.fspath(path))
        try:
            return bool(probe.recv(1))
        except ConnectionResetError:
            return False


def _advice(path: Path, what: str, verb: str) -> str:
    """Return what to do about the service of the package; another socket's has another way."""
    if path == DEFAULT_SOCKET and not os.environ.get(ENVIRONMENT):
        return f" ({what}: sudo systemctl {verb} llamad)"
    return f" (from ${ENVIRONMENT})" if str(path) == os.environ.get(ENVIRONMENT) else ""


def _group_hint(path: Path) -> str:
    """Return who may use the socket, as far as this user can see it."""
    for place in (path, path.parent):
        try:
            name = grp.getgrgid(place.stat().st_gid).gr_name
        except (OSError, KeyError):
            continue
        if _is_member(name):
            return f": you joined its group {name} after this login: log out and in again"
        join = f"sudo usermod -aG {name} $USER"
        return f": it belongs to the group {name} (join it: {join}, then log out and in again)"
    return ""


def _is_member(group: str) -> bool:
    """Whether this user was put into a group that this process does not have yet."""
    try:
        entry, user = grp.getgrnam(group), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return user in entry.gr_mem and entry.gr_gid not in (os.getegid(), *os.getgroups())
