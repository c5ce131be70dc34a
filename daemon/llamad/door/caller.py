"""Who is at the other end of a Unix socket, and whether they are an administrator or a gateway.

Owns the reading of credentials, which the kernel vouches for, and the rules that make an
administrator and a gateway. What these alone may do stands in ``rights.py``.
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
    is_gateway: bool = False  # may ask on behalf of others, as administrators may


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


class CallerGroups:
    """Which users are administrators and which are gateways.

    Administrators are root, the user that the service runs as, and the members of one group;
    gateways the members of another.
    """

    def __init__(self, admin_group: str, gateway_group: str = "") -> None:
        """Look the groups up, once; one that does not exist, or no name, has no members."""
        self._admin_gid = _group_id(admin_group, "administrators")
        self._gateway_gid = _group_id(gateway_group, "gateways")

    def caller(self, credentials: Credentials) -> Caller:
        """Return the caller with these credentials."""
        return Caller(
            uid=credentials.uid,
            is_admin=credentials.uid in (0, os.geteuid()) or self._admin_gid in credentials.gids,
            is_gateway=self._gateway_gid in credentials.gids,
        )


def _group_id(name: str, members: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid if name else None
    except KeyError:
        log.info(fields(f"no group of {members}", group=name))
        return None
