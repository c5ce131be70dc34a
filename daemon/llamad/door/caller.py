"""Who is at the other end of a Unix socket, and whether they are an administrator.

Owns the reading of credentials, which the kernel vouches for, and the one rule that makes an
administrator. What administrators alone may do stands in ``rights.py``.
"""

import array
import grp
import logging
import os
import pwd
import socket
import struct
from dataclasses import dataclass

from llamad.logs import fields

log = logging.getLogger(__name__)

SO_PEERGROUPS = 59  # of socket(7); Python's socket module has no name for it
_UCRED = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid
_MOST_OPTION_BYTES = 1024  # what Python's getsockopt takes


@dataclass(frozen=True, slots=True)
class Credentials:
    """The user and the groups that a process had when it connected."""

    uid: int
    gids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call."""

    uid: int
    is_admin: bool


def peer_credentials(connection: socket.socket) -> Credentials:
    """Return the credentials of the process that connected. Raises OSError."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, gid = _UCRED.unpack(data)
    groups = array.array("I")
    try:
        groups.frombytes(
            connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _MOST_OPTION_BYTES)
        )
    except OSError:  # more groups than fit, or a kernel before 4.13: what the user database says
        groups.extend(_groups_of_user(uid, gid))
    return Credentials(uid, frozenset((gid, *groups)))


def _groups_of_user(uid: int, gid: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except (KeyError, OSError):
        return []


class Administrators:
    """Root, the user that the service runs as, and the members of one group."""

    def __init__(self, group: str) -> None:
        """Look the group up, once; one that does not exist, or no name, has no members."""
        self._gid: int | None = None
        try:
            self._gid = grp.getgrnam(group).gr_gid if group else None
        except KeyError:
            log.info(fields("no group of administrators", group=group))

    def caller(self, credentials: Credentials) -> Caller:
        """Return the caller with these credentials."""
        return Caller(
            uid=credentials.uid,
            is_admin=credentials.uid in (0, os.geteuid()) or self._gid in credentials.gids,
        )
