"""A pinned prefix as a file: its name, whose it is, and its tokens. Its blocks have their own.

Owns the format: a line with a checksum, then JSON. Blocking.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from llamad.small_file import read_bounded, replace_small

SUFFIX = ".pin"
VERSION = 1
MAX_TOKENS = 1 << 20
MAX_BYTES = 16 << 20


class PinFileError(Exception):
    """A file that is no pin; the message has the fault."""


@dataclass(frozen=True, slots=True)
class Pin:
    """A beginning of prompts that is kept. owner: a scope, as text."""

    name: str
    owner: str
    tokens: tuple[int, ...]
    made_at: float  # seconds since 1970
    configured: bool = False  # by a section [prefixes.NAME], and no longer than that is there

    @property
    def file_name(self) -> str:
        """The name of its file: of an owner there is one of a name."""
        return hashlib.blake2b(f"{self.owner}\0{self.name}".encode(), digest_size=16).hexdigest()


def write_pin(directory: Path, pin: Pin) -> None:
    """Put a pin in its place, on the disk when this returns. Raises OSError."""
    body = json.dumps({"version": VERSION, **asdict(pin)}).encode()
    replace_small(directory / (pin.file_name + SUFFIX), _sum(body) + b"\n" + body)


def read_pin(path: Path) -> Pin:
    """Return the pin of a file. Raises PinFileError, OSError."""
    checksum, _, body = read_bounded(path, MAX_BYTES).partition(b"\n")
    if checksum != _sum(body):
        raise PinFileError("it does not match its checksum")
    try:
        values = json.loads(body)
        version = values.pop("version")
        if version != VERSION:
            raise PinFileError(f"it is of version {version}, this llamad knows {VERSION}")
        if set(values) != {entry.name for entry in fields(Pin)}:
            raise PinFileError("it has other fields than a pin")
        pin = Pin(**values | {"tokens": tuple(values["tokens"])})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PinFileError(f"it is no JSON of a pin: {error}") from None
    _check(pin, path)
    return pin


def _check(pin: Pin, path: Path) -> None:
    texts = isinstance(pin.name, str) and isinstance(pin.owner, str)
    numbers = isinstance(pin.made_at, int | float) and isinstance(pin.configured, bool)
    if not texts or not numbers:
        raise PinFileError("a field has another type than it must have")
    if len(pin.tokens) > MAX_TOKENS:
        raise PinFileError(f"it has {len(pin.tokens)} tokens, at most {MAX_TOKENS}")
    if not all(type(token) is int and 0 <= token < 1 << 31 for token in pin.tokens):
        raise PinFileError("a token is no token id")
    if pin.file_name + SUFFIX != path.name:
        raise PinFileError("it has the name of another file")


def _sum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).hexdigest().encode()
