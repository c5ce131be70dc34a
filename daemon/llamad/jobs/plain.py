"""Dataclasses as JSON's types and back, checked: what is read may be of any origin.

A field that is not there gets its default, one that nobody knows is left out, so that neighbouring
versions read each other's. What has another type than its field raises ValueError.
"""

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, cast

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Return a value as dicts, lists, strings, numbers and None."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    return value


def from_plain(kind: type[T], plain: object) -> T:
    """Return a dataclass of what ``to_plain`` made. Raises ValueError that names the field."""
    if not isinstance(plain, dict):
        raise ValueError(f"{kind.__name__}: is no table")
    hints = typing.get_type_hints(kind)
    values = {}
    for field in dataclasses.fields(cast(Any, kind)):
        if field.name in plain:
            try:
                values[field.name] = _value(hints[field.name], plain[field.name])
            except ValueError as error:
                raise ValueError(f"{kind.__name__}.{field.name}: {error}") from None
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{kind.__name__}.{field.name}: is missing")
    return kind(**values)


def _value(hint: Any, plain: Any) -> Any:
    """Return a field's value of this type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return plain
    if origin in (types.UnionType, typing.Union):
        if plain is None and type(None) in arguments:
            return None
        return _value(next(one for one in arguments if one is not type(None)), plain)
    if origin is tuple and isinstance(plain, list):
        return tuple(_value(arguments[0], entry) for entry in plain)
    if origin in (Mapping, dict) and isinstance(plain, dict):
        key = arguments[0]
        return {key(name): _value(arguments[1], entry) for name, entry in plain.items()}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(plain)
    if dataclasses.is_dataclass(hint):
        return from_plain(cast(Any, hint), plain)
    if hint is float and type(plain) is int:
        return float(plain)
    if not isinstance(hint, type) or type(plain) is not hint:
        raise ValueError(f"is {plain!r:.60}, no {getattr(hint, '__name__', hint)}")
    return plain
