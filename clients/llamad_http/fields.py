"""Typed fields of a JSON object that a client sent; a wrong one is an ``HttpError`` with its name.

An absent field and ``null`` are the same. A truth value is no number, and a number with an empty
fraction (``3.0``) is an integer, because clients send such.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from llamad_http.errors import HttpError, invalid

MAX_DEPTH = 64  # of objects and lists within each other
MAX_TOKENS = 1 << 20  # of a list
MAX_CONTAINERS = 1 << 15  # objects and lists of a body
MAX_VALUES = MAX_TOKENS + (1 << 16)  # of a body


def parse_object(body: bytes) -> "Fields":
    """Return the JSON object of a request's body. Raises HttpError."""
    value = _parse(body or b"{}")
    if not isinstance(value, dict):
        raise HttpError(400, "INVALID_JSON", "body: must be a JSON object")
    return Fields(value)


def parse_list(body: bytes, name: str) -> "Fields":
    """Return an object whose field ``name`` is the JSON list of a body. Raises HttpError."""
    value = _parse(body)
    if not isinstance(value, list):
        raise HttpError(400, "INVALID_JSON", "body: must be a JSON list")
    return Fields({name: value})


def _parse(body: bytes) -> Any:
    _check_size(body)
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise HttpError(400, "INVALID_JSON", f"body: no UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise HttpError(400, "INVALID_JSON", f"body: no JSON: {error}") from None
    if isinstance(value, dict | list):
        _check_depth(value)
    return value


def _check_size(body: bytes) -> None:
    """Raise HttpError for JSON of so many values that reading them would hold all streams."""
    if _containers(body) <= MAX_CONTAINERS and body.count(b",") < MAX_VALUES:
        return
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    n_texts = plain.count(b'"') // 2
    outside = b"" if n_texts > 2 * MAX_VALUES else b"".join(plain.split(b'"')[::2])
    if _containers(outside) > MAX_CONTAINERS:
        raise _too_many(f"{MAX_CONTAINERS} objects and lists")
    if n_texts > 2 * MAX_VALUES or outside.count(b",") >= MAX_VALUES:
        raise _too_many(f"{MAX_VALUES} values")


def _too_many(most: str) -> HttpError:
    return HttpError(400, "INVALID_JSON", f"body: has more than {most}")


def _containers(text: bytes) -> int:
    return text.count(b"{") + text.count(b"[")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _too_deep() -> HttpError:
    return HttpError(400, "INVALID_JSON", f"body: more than {MAX_DEPTH} levels within each other")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise _too_deep()


class Fields:
    """A JSON object, and the name under which errors call it: ``options.`` for one inside."""

    def __init__(self, values: Mapping[str, Any], prefix: str = "") -> None:
        self.values = values
        self.prefix = prefix

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def get(self, name: str) -> Any:
        """Return a field as it is; None where it is absent."""
        return self.values.get(name)

    def wrong(self, name: str, message: str) -> HttpError:
        """Return the error for a field of this object."""
        return invalid(self.prefix + name, message)

    def text(self, name: str) -> str | None:
        """Return a string; raise HttpError for anything else and for half a surrogate pair."""
        value = self.values.get(name)
        if value is None:
            return None
        return self._text(name, value)

    def _text(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise self.wrong(name, f"must be a string, not {kind_of(value)}")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.wrong(name, "has half of a surrogate pair, which is no character") from None
        return value

    def flag(self, name: str) -> bool | None:
        """Return a truth value."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, f"must be true or false, not {kind_of(value)}")
        return value

    def number(self, name: str) -> float | None:
        """Return a finite number."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, f"must be a number, not {kind_of(value)}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.wrong(name, "is too large a number")
        return number

    def integer(self, name: str, least: int = -(1 << 63), most: int = (1 << 64) - 1) -> int | None:
        """Return an integer in a range, ends included."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(name, f"must be an integer, not {kind_of(value)}")
        if not least <= value <= most:
            raise self.wrong(name, f"must be {least} to {most}, is {value}")
        return value

    def texts(self, name: str) -> list[str]:
        """Return a string, or a list of strings, as a list."""
        value = self.values.get(name)
        if value is None:
            return []
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            raise self.wrong(name, f"must be a string or a list of strings, not {kind_of(value)}")
        return [self._text(f"{name}[{n}]", entry) for n, entry in enumerate(value)]

    def tokens(self, name: str) -> list[int]:
        """Return a list of token ids; an absent one is empty."""
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > MAX_TOKENS:
            raise self.wrong(name, f"must be a list of at most {MAX_TOKENS} tokens")
        one = Fields({}, f"{self.prefix}{name}")
        for n, token in enumerate(value):
            if type(token) is not int or not 0 <= token < 1 << 31:
                raise one.wrong(f"[{n}]", "must be the number of a token")
        return value

    def object(self, name: str) -> "Fields":
        """Return an object inside this one; an absent one is empty."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, f"must be an object, not {kind_of(value)}")
        return Fields(value or {}, f"{self.prefix}{name}.")

    def objects(self, name: str) -> "list[Fields]":
        """Return a list of objects; an absent one is empty."""
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(name, f"must be a list, not {kind_of(value)}")
        for n, entry in enumerate(value):
            if not isinstance(entry, dict):
                raise self.wrong(f"{name}[{n}]", f"must be an object, not {kind_of(entry)}")
        return [Fields(entry, f"{self.prefix}{name}[{n}].") for n, entry in enumerate(value)]


def kind_of(value: Any) -> str:
    """Return what JSON calls a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    for kind, name in ((str, "a string"), (int, "a number"), (float, "a number"), (list, "a list")):
        if isinstance(value, kind):
            return name
    return "an object"
