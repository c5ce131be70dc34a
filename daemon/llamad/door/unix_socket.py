"""The Unix socket as a file: whose it is, who may use it, and when an old one may go.

Owns the checks before binding, the binding and the permissions. A socket that nobody accepts on is
a leftover and is removed. Anything else at its place is an error that names it, and stays.
"""

import contextlib
import grp
import os
import secrets
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from llamad.errors import ErrorKind, LlamadError

MAX_PATH_BYTES = 107  # sun_path of unix(7), without its terminator
_CONNECT_SECONDS = 1.0
_BACKLOG = 128


def make_room(path: Path) -> None:
    """Check that a socket can be bound at path, and remove a stale one.

    Raises LlamadError: SOCKET_IN_USE, SOCKET_PATH_TAKEN, SOCKET_PATH_INVALID or SOCKET_UNUSABLE.
    """
    size = len(os.fsencode(path))
    if size > MAX_PATH_BYTES:
        raise _error(
            "SOCKET_PATH_INVALID", f"socket {path}: path has {size} bytes, at most {MAX_PATH_BYTES}"
        )
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise _error(
                "SOCKET_PATH_INVALID", f"socket {path}: no directory {path.parent}"
            ) from None
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise _error(
                "SOCKET_UNUSABLE", f"socket {path}: may not be created in {path.parent}"
            ) from None
        return
    except OSError as error:
        raise _error("SOCKET_UNUSABLE", f"socket {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise _error("SOCKET_PATH_TAKEN", f"socket {path}: a {_kind(mode)} is there, not a socket")
    if _accepts(path):
        raise _error("SOCKET_IN_USE", f"socket {path}: another service is listening on it")
    try:
        path.unlink()
    except OSError as error:
        raise _error(
            "SOCKET_UNUSABLE", f"socket {path}: stale, and cannot be removed: {error.strerror}"
        ) from error


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except (TimeoutError, BlockingIOError):  # its backlog is full: somebody owns it
            return True
        except OSError as error:
            raise _error("SOCKET_UNUSABLE", f"socket {path}: {error.strerror}") from error
        return True


def _kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISLNK, "symbolic link"),
        (stat.S_ISDIR, "directory"),
        (stat.S_ISREG, "file"),
        (stat.S_ISFIFO, "FIFO"),
    ):
        if test(mode):
            return name
    return "device"


def group_id(name: str) -> int:
    """Return the id of a group; -1, which changes nothing, for no name. Raises GROUP_NOT_FOUND."""
    if not name:
        return -1
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise _error("GROUP_NOT_FOUND", f"socket_group: there is no group {name!r}") from None


def listen(path: Path, gid: int, mode: int) -> socket.socket:
    """Return a socket that listens at path, whose group and mode are set before anyone connects.

    Raises LlamadError SOCKET_UNUSABLE, and leaves nothing at path then.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with only_for_owner():
            listener.bind(os.fspath(path))
    except OSError as error:
        listener.close()
        raise _error("SOCKET_UNUSABLE", f"socket {path}: {error.strerror}") from error
    try:
        _open_to_group(path, gid, mode)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        path.unlink(missing_ok=True)
        raise
    return listener


@contextlib.contextmanager
def only_for_owner() -> Iterator[None]:
    """Let sockets that are bound meanwhile be for their owner alone."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def _open_to_group(path: Path, gid: int, mode: int) -> None:
    """Give the bound socket its group and mode, in this order, so that it is never open wider.

    Without a group of its own nothing asks for chown(2), which the unit's sandbox refuses.
    """
    try:
        if gid != -1:
            os.chown(path, -1, gid)
        path.chmod(mode)
    except OSError as error:
        raise _error(
            "SOCKET_UNUSABLE", f"socket {path}: cannot set group and mode: {error.strerror}"
        ) from error


class NamelessSocket:
    """A listening socket with no name in the file system, for this process alone.

    Whoever makes it binds it to a path; then the name goes, and ``address`` leads to what was bound
    there. So nothing is left behind, however the process ends, and nobody else finds it.
    """

    def __init__(self, folder: Path, bind: Callable[[str], None]) -> None:
        """Let ``bind`` make a socket at the path it is given, in folder. Raises OSError."""
        name = f".llamad-{secrets.token_hex(8)}"
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            path = f"/proc/self/fd/{descriptor}/{name}"  # short enough, whatever the folder's is
            with only_for_owner():
                bind(path)
            try:
                self._descriptor = os.open(path, os.O_PATH)
            finally:
                os.unlink(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        self.address = f"/proc/self/fd/{self._descriptor}"

    def close(self) -> None:
        """Give up the way to the socket."""
        os.close(self._descriptor)


def _error(reason: str, message: str) -> LlamadError:
    return LlamadError(ErrorKind.STATE, reason, message)
