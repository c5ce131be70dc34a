"""The models that ``llamactl pull`` knows by name, and where their list lies.

The file is packaging/catalogue/catalogue.toml; what its fields mean stands there.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llamad_client import Failed, Refused

ENVIRONMENT = "LLAMAD_CATALOGUE"
INSTALLED = Path("/usr/share/llamad/catalogue.toml")
LEAST_SHARE_SEEN = 0.85  # of a board's memory, by its operating system
OF_CHECKOUT = Path(__file__).parents[2] / "packaging" / "catalogue" / "catalogue.toml"


@dataclass(frozen=True, slots=True)
class Board:
    """A machine: the bytes that decoding reads a second, and who says so."""

    bytes_per_second: float
    speed_source: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A model. file_bytes: exact. sha256: of the file, empty when not known."""

    name: str
    aliases: tuple[str, ...]
    title: str
    url: str
    file_bytes: int
    sha256: str
    bytes_per_token: int
    licence: str
    conditions: str
    memory: str
    context: int
    note: str
    sampling: Mapping[str, float] = field(default_factory=dict)  # that its makers recommend

    def tokens_per_second(self, board: Board) -> float:
        """Return the expected speed on a board: it waits for the weights."""
        return board.bytes_per_second / self.bytes_per_token

    @property
    def least_machine_bytes(self) -> int:
        """The memory that a machine for this model sees: a board's kernel keeps some for itself."""
        gigabytes = float(self.memory.removesuffix("GB"))
        return int(LEAST_SHARE_SEEN * gigabytes * (1 << 30))


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The whole file."""

    boards: Mapping[str, Board]
    entries: tuple[Entry, ...]

    def find(self, name: str) -> Entry:
        """Return the model of a name or alias in any case; raise Refused that lists near ones."""
        known = {key: entry for entry in self.entries for key in (entry.name, *entry.aliases)}
        entry = known.get(name.lower())
        if entry is None:
            near = difflib.get_close_matches(name.lower(), known, n=4, cutoff=0.5)
            hint = f"; near it: {', '.join(near)}" if near else ""
            message = f"the catalogue has no model {name!r}{hint} (llamactl models --catalogue)"
            raise Refused("NOT_FOUND", message)
        return entry


def catalogue_path() -> Path:
    """Return where the catalogue is: $LLAMAD_CATALOGUE, the checkout's, or the installed one."""
    given = os.environ.get(ENVIRONMENT)
    if given:
        return Path(given)
    return OF_CHECKOUT if OF_CHECKOUT.exists() else INSTALLED


def read_catalogue() -> Catalogue:
    """Read the file. Raises Failed when it is missing or broken."""
    path = catalogue_path()
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
        boards = {name: Board(**values) for name, values in tables["boards"].items()}
        entries = tuple(_entry(values) for values in tables["models"])
    except OSError as error:
        message = f"no catalogue of models: {path}: {error.strerror}; pull by URL or path"
        raise Failed("NO_CATALOGUE", message) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # TOML's is a ValueError
        message = f"the catalogue {path} is broken: {error}"
        raise Failed("NO_CATALOGUE", message) from None
    return Catalogue(boards, entries)


def _entry(values: Mapping[str, Any]) -> Entry:
    sampling = {name: float(value) for name, value in values.get("sampling", {}).items()}
    return Entry(**{**values, "aliases": tuple(values["aliases"]), "sampling": sampling})
