"""The configuration: ``/etc/llamad/http.toml``, each key with its range and its default.

``packaging/etc/http.toml`` documents the keys for people; a test compares the two. An unknown key,
a wrong type or a value outside its range is an error that names the file, the key and what is
allowed.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from llamad_client.request import Priority
from llamad_http.authorization import CLASSES

DEFAULT_PATH = Path("/etc/llamad/http.toml")
MIB = 1 << 20


class ConfigError(Exception):
    """A configuration with a mistake; the text is one line."""


def _key(section: str, default: Any, low: float = 0, high: float = 0) -> Any:
    """Return a field; low and high are the range of a number, ends included."""
    return field(default=default, metadata={"section": section, "low": low, "high": high})


@dataclass(frozen=True, slots=True)
class Config:
    """All keys, in their sections; a test compares them with packaging/etc/http.toml."""

    listen: tuple[str, ...] = _key("server", ("127.0.0.1:8080", "127.0.0.1:11434"))
    hosts: tuple[str, ...] = _key("server", ())
    origins: tuple[str, ...] = _key("server", ())
    keys: str = _key("server", "/etc/llamad/http-keys")
    allow_unauthenticated: bool = _key("server", False)
    idle_exit_seconds: int = _key("server", 600, 0, 1 << 31)
    socket: str = _key("service", "/run/llamad/llamad.sock")
    priority: Priority = _key("service", "normal")  # noqa: RUF009 - a field
    any_model_name: bool = _key("service", True)
    aliases: Mapping[str, str] = field(default_factory=dict, metadata={"section": "aliases"})
    max_body_bytes: int = _key("limits", 16 * MIB, 1024, 1 << 30)
    max_bodies_bytes: int = _key("limits", 32 * MIB, 1024, 1 << 32)
    max_connections: int = _key("limits", 1024, 1, 65536)
    max_connections_per_address: int = _key("limits", 256, 1, 65536)
    max_completions: int = _key("limits", 64, 1, 256)
    head_seconds: float = _key("limits", 20.0, 0.1, 3600)
    body_seconds: float = _key("limits", 60.0, 0.1, 3600)
    write_seconds: float = _key("limits", 60.0, 0.1, 3600)
    keep_alive_seconds: float = _key("limits", 75.0, 0.1, 3600)
    ping_seconds: float = _key("limits", 10.0, 0.1, 3600)
    drain_seconds: float = _key("limits", 20.0, 0, 3600)


def load_config(path: Path | None) -> Config:
    """Return the configuration of a file, of the default one where None. Raises ConfigError."""
    try:
        text = (path or DEFAULT_PATH).read_text("utf-8")
    except FileNotFoundError:
        if path is None:
            return Config()
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path or DEFAULT_PATH}: {error}") from None
    try:
        return parse_config(text)
    except (ConfigError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path or DEFAULT_PATH}: {error}") from None


def parse_config(text: str) -> Config:
    """Return the configuration that a text says. Raises ConfigError and TOMLDecodeError."""
    known = {(entry.metadata["section"], entry.name): entry for entry in fields(Config)}
    sections = {section for section, _ in known}
    values: dict[str, Any] = {}
    for section, table in tomllib.loads(text).items():
        if section not in sections or not isinstance(table, dict):
            raise ConfigError(f"[{section}]: unknown, there are {', '.join(sorted(sections))}")
        if section == "aliases":
            for name, target in table.items():
                _check_type(f"aliases.{name}", target, "")
            values["aliases"] = table
            continue
        for name, value in table.items():
            entry = known.get((section, name))
            if entry is None:
                raise ConfigError(f"{section}.{name}: unknown key")
            values[name] = _checked(f"{section}.{name}", value, entry.default, entry.metadata)
    return Config(**values)


def _checked(name: str, value: Any, default: Any, metadata: Mapping[str, Any]) -> Any:
    """Return a value in its final type. Raises ConfigError."""
    if isinstance(default, tuple):
        if not isinstance(value, list):
            raise ConfigError(f"{name}: must be a list of strings")
        for entry in value:
            _check_type(name, entry, "")
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    _check_type(name, value, default)
    if name == "service.priority" and value not in CLASSES:
        raise ConfigError(f"{name}: must be one of {', '.join(CLASSES)}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = metadata["low"], metadata["high"]
        if not low <= value <= high:
            raise ConfigError(f"{name}: must be {low:g} to {high:g}, is {value:g}")
    return value


def _check_type(name: str, value: Any, example: Any) -> None:
    if type(value) is not type(example):
        kinds = {str: "a string", bool: "true or false", int: "a whole number", float: "a number"}
        raise ConfigError(f"{name}: must be {kinds[type(example)]}")
