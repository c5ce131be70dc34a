"""Where the service listens, and why it may not be reachable there.

Owns the search for the socket and the diagnosis of a connection that failed. It connects only to
find out why a call could not.
"""

import grp
import os
import pwd
import socket
from pathlib import Path
from urllib.parse import quote

from llamad_client.errors import NoPermission, NotRunning, ServiceUnreachable

DEFAULT_SOCKET = Path("/run/llamad/llamad.sock")
ENVIRONMENT = "LLAMAD_SOCKET"
MAX_PATH_BYTES = 107  # sun_path of unix(7), without its terminator

# A path is no host name: some servers refuse it as :authority.
CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.default_authority", "localhost"),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # A socket is cheap to try, so a service that is started again is found within a second; what
    # gRPC does by default, waiting for up to two minutes, is meant for networks.
    ("grpc.initial_reconnect_backoff_ms", 200),
    # Against its name, how long one attempt may take, until the service's SETTINGS frame has come:
    # a service on a machine under load may take seconds for it, and has not lost any connection.
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


def socket_path(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the absolute path of the socket: the one given, $LLAMAD_SOCKET, or the default."""
    return Path(given or os.environ.get(ENVIRONMENT) or DEFAULT_SOCKET).absolute()


def target(path: Path) -> str:
    """Return the gRPC target of a socket. Raises ServiceUnreachable for a path that is too long."""
    name = os.fsencode(path)
    if len(name) > MAX_PATH_BYTES:
        message = f"socket {path}: path has {len(name)} bytes, at most {MAX_PATH_BYTES}"
        raise ServiceUnreachable("SOCKET_PATH_INVALID", message)
    return "unix:" + quote(name)


def diagnose(path: Path, otherwise: str) -> ServiceUnreachable:
    """Return why the service at path cannot be reached; ``otherwise`` when it can be now."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            probe.connect(os.fspath(path))
            if not probe.recv(1):  # a service speaks first; one that is too busy hangs up
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
