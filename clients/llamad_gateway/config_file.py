"""The configuration of a gateway: a file of TOML, whose keys are the fields of a dataclass.

An unknown key, a wrong type or a value outside its range is an error that names the file, the key
and what is allowed. A file of ``packaging/etc`` documents the keys for people; tests compare the
two.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields
from pathlib import Path
from typing import Any, TypeVar

Config = TypeVar("Config")  # a frozen dataclass


class ConfigError(Exception):
    """A configuration with a mistake; the text is one line."""


def key(
    section: str, default: Any, low: float = 0, high: float = 0, *, one_of: tuple[str, ...] = ()
) -> Any:
    """Return a field of a configuration.

    default: also says the type; a mapping is a section that has names of the user's.
    low, high: the range of a number, ends included. one_of: the texts that are allowed.
    """
    about = {"section": section, "low": low, "high": high, "one_of": one_of}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=about)
    return field(default=default, metadata=about)


def load(kind: type[Config], path: Path | None, default_path: Path) -> Config:
    """Return the configuration of a file, of the default one where None. Raises ConfigError."""
    place = path or default_path
    try:
        text = place.read_text("utf-8")
    except FileNotFoundError:
        if path is None:
            return kind()
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}: {error}") from None
    try:
        return parse(kind, text)
    except (ConfigError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{place}: {error}") from None


def parse(kind: type[Config], text: str) -> Config:
    """Return the configuration that a text says. Raises ConfigError and TOMLDecodeError."""
    known = {(entry.metadata["section"], entry.name): entry for entry in fields(kind)}  # type: ignore[arg-type]
    sections = {section for section, _ in known}
    values: dict[str, Any] = {}
    for section, table in tomllib.loads(text).items():
        if section not in sections or not isinstance(table, dict):
            raise ConfigError(f"[{section}]: unknown, there are {', '.join(sorted(sections))}")
        whole = known.get((section, section))
        if whole is not None and whole.default is MISSING:
            for name, value in table.items():
                _check_type(f"{section}.{name}", value, "")
            values[section] = table
            continue
        for name, value in table.items():
            entry = known.get((section, name))
            if entry is None:
                raise ConfigError(f"{section}.{name}: unknown key")
            values[name] = _checked(f"{section}.{name}", value, entry)
    return kind(**values)


def _checked(name: str, value: Any, entry: Field[Any]) -> Any:
    """Return a value in its final type. Raises ConfigError."""
    default, about = entry.default, entry.metadata
    if isinstance(default, tuple):
        if not isinstance(value, list):
            raise ConfigError(f"{name}: must be a list of strings")
        for part in value:
            _check_type(name, part, "")
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    _check_type(name, value, default)
    if about["one_of"] and value not in about["one_of"]:
        raise ConfigError(f"{name}: must be one of {', '.join(about['one_of'])}")
    _check_range(name, value, about)
    return value


def _check_range(name: str, value: Any, about: Mapping[str, Any]) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = about["low"], about["high"]
        if not low <= value <= high:
            raise ConfigError(f"{name}: must be {low:g} to {high:g}, is {value:g}")


def _check_type(name: str, value: Any, example: Any) -> None:
    if type(value) is not type(example):
        kinds = {str: "a string", bool: "true or false", int: "a whole number", float: "a number"}
        raise ConfigError(f"{name}: must be {kinds[type(example)]}")
