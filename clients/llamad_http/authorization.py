"""Who may ask, and as whom: API keys, the class each may have, and where requests may come from.

A key is 32 random bytes, so its SHA-256 in the file gives nobody the key. Without keys everybody
who reaches the gateway may use it, which is only allowed on loopback and Unix sockets. The Host
check stands against DNS rebinding: a page of somebody's domain that comes to point at this machine
still names its own domain. An address cannot be rebound, so every address is a good name.
"""

import base64
import grp
import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from llamad_client.request import Priority
from llamad_http.errors import HttpError

CLASSES: tuple[Priority, ...] = ("batch", "normal", "interactive")
"""The classes of jobs, from the least urgent on."""

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_LINE = re.compile(r"(\S+) (batch|normal|interactive) (user|admin) ([0-9a-f]{64}) (\d+)")
KEY_PREFIX = "llk-"

READERS = "llamad-gateway"
"""The group that may read the file; the gateway's user is in it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a request is made. owner: of its jobs, None where nobody has a name."""

    owner: str | None
    most_urgent: Priority
    is_admin: bool


NOBODY = Caller(None, "batch", False)


@dataclass(frozen=True, slots=True)
class Key:
    """A line of the file of keys. sha256: of the key, hexadecimal. created: seconds since 1970."""

    name: str
    most_urgent: Priority
    is_admin: bool
    sha256: str
    created: int


class Keys:
    """The file of keys; it is read again when it was written."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._keys: tuple[Key, ...] = ()

    def all(self) -> tuple[Key, ...]:
        """Return the keys. Raises OSError, and ValueError that names the line."""
        if self._path is None:
            return ()
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return ()
        version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if version != self._version:
            self._keys = tuple(parse_keys(self._path.read_text("utf-8"), str(self._path)))
            self._version = version
        return self._keys

    def find(self, secret: str) -> Key | None:
        """Return the key with this secret; every line is compared, in the same time."""
        digest = digest_of(secret)
        found = None
        for key in self.all():
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found


def parse_keys(text: str, path: str) -> Iterable[Key]:
    """Return the keys of a file's text. Raises ValueError."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or not _NAME.fullmatch(match[1]):
            raise ValueError(f"{path}:{number}: no key: llamad-http key add writes these lines")
        priority: Priority = match[2]  # type: ignore[assignment]
        yield Key(match[1], priority, match[3] == "admin", match[4], int(match[5]))


def digest_of(secret: str) -> str:
    """Return the SHA-256 of a key."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def add_key(path: Path, name: str, most_urgent: Priority, is_admin: bool) -> str:
    """Add a key to the file and return its secret, which is stored nowhere. Raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r}: a name is 1 to 64 letters, digits and ._@-")
    keys = Keys(path).all()
    if any(key.name == name for key in keys):
        raise ValueError(f"{name}: there is a key of this name")
    secret = KEY_PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    key = Key(name, most_urgent, is_admin, digest_of(secret), int(time.time()))
    _write(path, (*keys, key))
    return secret


def remove_key(path: Path, name: str) -> None:
    """Remove a key from the file. Raises ValueError."""
    keys = Keys(path).all()
    if all(key.name != name for key in keys):
        raise ValueError(f"{name}: there is no key of this name")
    _write(path, [key for key in keys if key.name != name])


def _write(path: Path, keys: Iterable[Key]) -> None:
    """Replace the file; its group may read it, at first the gateway's."""
    try:
        gid = path.stat().st_gid
    except FileNotFoundError:
        try:
            gid = grp.getgrnam(READERS).gr_gid
        except KeyError:
            gid = os.getegid()
    lines = ["# API keys of llamad-http: name, most urgent class, rights, SHA-256, created"]
    for key in keys:
        rights = "admin" if key.is_admin else "user"
        lines.append(f"{key.name} {key.most_urgent} {rights} {key.sha256} {key.created}")
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "w") as file:
        os.fchmod(file.fileno(), 0o640)
        if os.geteuid() == 0:
            os.fchown(file.fileno(), 0, gid)
        file.write("\n".join(lines) + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


class Authorization:
    """The one place that says who a request is made for."""

    def __init__(
        self, keys: Keys, *, beyond_loopback: bool, allow_unauthenticated: bool, priority: Priority
    ) -> None:
        """``priority``: the most urgent class of who needs no key."""
        self._keys = keys
        self._needs_key = beyond_loopback and not allow_unauthenticated
        self._nobody = Caller(None, priority, False)

    def caller(self, headers: dict[str, str]) -> Caller:
        """Return who asks, by the headers of a request. Raises HttpError."""
        try:
            needed = self._needs_key or bool(self._keys.all())
            if not needed:
                return self._nobody
            secret = _secret(headers)
            key = self._keys.find(secret) if secret else None
        except (OSError, ValueError) as error:
            raise HttpError(503, "KEYS_UNREADABLE", f"the file of keys: {error}") from None
        if key is None:
            message = "no API key" if not secret else "the API key is not known"
            raise HttpError(401, "UNAUTHENTICATED", message)
        return Caller(key.name, key.most_urgent, key.is_admin)


def _secret(headers: dict[str, str]) -> str:
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return secret.strip()
    return headers.get("x-api-key", "").strip()


def priority_of(caller: Caller, wanted: str | None) -> Priority:
    """Return the class of a job: as the request wants, at most what the caller may have.

    wanted: the header ``Llamad-Priority``. Raises HttpError.
    """
    if wanted is None:
        return caller.most_urgent
    if wanted not in CLASSES:
        message = f"Llamad-Priority: must be one of {', '.join(CLASSES)}, is {wanted!r}"
        raise HttpError(400, "INVALID_PRIORITY", message, field="Llamad-Priority")
    return min(wanted, caller.most_urgent, key=CLASSES.index)


class Origins:
    """The Host and Origin checks of connections over TCP."""

    def __init__(self, hosts: Iterable[str], origins: Iterable[str]) -> None:
        """Beside these names and origins, the machine's own names and every address are good."""
        own = socket.gethostname().lower()
        self._hosts = {"localhost", own, f"{own}.local", own.split(".", 1)[0] + ".local"}
        self._hosts |= {host.lower() for host in hosts}
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    def check(self, headers: dict[str, str]) -> None:
        """Raise HttpError for a request that a page of somebody else's may have made."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            message = f"Host {host[:100]!r} is no name of this machine: add it to server.hosts"
            raise HttpError(403, "HOST_REFUSED", message)
        origin = headers.get("origin")
        if origin is None or self.allows(origin):
            return
        if urlsplit(origin).netloc.lower() == host.lower():
            return
        message = f"Origin {origin[:100]!r} is not allowed: add it to server.origins"
        raise HttpError(403, "ORIGIN_REFUSED", message)

    def allows(self, origin: str) -> bool:
        """Whether pages of an origin were allowed by the configuration."""
        return origin.lower().rstrip("/") in self._origins

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        name = name.rstrip(".")
        if name in self._hosts or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name.split("%", 1)[0])
        except ValueError:
            return False
        return True
