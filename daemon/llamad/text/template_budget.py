"""What one rendering of a template may cost, in steps and in time, and who pays how much.

A step is a loop turn, or sixteen characters that are made. What could be huge is paid before it is
made, so a rendering that may not go on never held much. Time is the net below: it catches what no
step sees. Where in a template the payments happen is ``template_sandbox.py``.
"""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from typing import Any

_MAX_STEPS = 1 << 21  # of one rendering
_MAX_CPU_SECONDS = 5.0  # of one rendering: what the steps do not see, such as slices of long text
_CHARACTERS_PER_STEP = 16
_CALL_STEPS = 4  # what a call or a container costs by itself
_MAX_ARGUMENT = 100_000  # integers given to functions and filters: widths, counts
_MAX_FIELD = 999  # characters of padding in a formatted field
_WIDE_FIELD = re.compile(
    r"%(?:\([^)]*\))?[-+ #_^.0-9]*?(?:[0-9]{4}|\*)"  # of % and strftime
    r"|\{[^{}]*:[^{}]*?(?:[0-9]{4}|\{)"  # of str.format; a nested field computes the width
)

_CONTAINERS = (list, tuple, dict, set, frozenset)


class TemplateLimitError(Exception):
    """A template used more than it may."""


class _Budget:
    """The steps one rendering has left."""

    def __init__(self, source_characters: int) -> None:
        self.source_characters = source_characters
        self._steps_left = _MAX_STEPS
        self._payments = 0
        self._cpu_deadline = time.thread_time() + _MAX_CPU_SECONDS

    def pay(self, characters: int) -> None:
        self._steps_left -= 1 + characters // _CHARACTERS_PER_STEP
        if self._steps_left < 0:
            raise TemplateLimitError(f"computes too much: more than {_MAX_STEPS} steps")
        self._payments += 1  # reading the clock costs as much as a hundred payments
        if self._payments % 256 == 0 and time.thread_time() > self._cpu_deadline:
            raise TemplateLimitError(f"computes too long: more than {_MAX_CPU_SECONDS} s")


_budget: ContextVar[_Budget] = ContextVar("llamad_template_budget")


@contextmanager
def budget(source_characters: int) -> Iterator[None]:
    """Give the code inside, on this thread, the budget of one rendering."""
    token = _budget.set(_Budget(source_characters))
    try:
        yield
    finally:
        _budget.reset(token)


def source_characters() -> int:
    """Return the size of the source of the template that is being rendered."""
    return _budget.get().source_characters


def pay(characters: int = 0) -> None:
    """Pay for one step and some characters. Raises TemplateLimitError."""
    _budget.get().pay(characters)


def pay_call() -> None:
    """Pay for calling a function."""
    pay(_CALL_STEPS * _CHARACTERS_PER_STEP)


def paid(value: Any) -> Any:
    """Return ``value``, its length paid, and that of every container inside it.

    A few list literals can nest one list in itself a billion times over; it must not come to be.
    """
    if isinstance(value, str | bytes):
        pay(len(value))
        return value
    if isinstance(value, _CONTAINERS):
        pay((_CALL_STEPS + len(value)) * _CHARACTERS_PER_STEP)
    for item in _items(value):
        if isinstance(item, _CONTAINERS):
            paid(item)
    return value


def text_of(value: Any) -> str:
    """Return str(value), all text inside it paid before it is made."""
    pay_text(value)
    return str(value)


def pay_text(value: Any) -> int:
    """Pay for all text inside a value; return its length."""
    length = len(value) if isinstance(value, str | bytes) else 0
    pay(length)
    return length + sum(pay_text(item) for item in _items(value))


def _items(value: Any) -> Iterable[Any]:
    """Return what is inside a container, nothing for any other value."""
    if isinstance(value, dict):
        return chain(value.keys(), value.values())
    return value if isinstance(value, _CONTAINERS) else ()


def check_arguments(values: Iterable[Any]) -> None:
    """Raise TemplateLimitError for an integer that is no sensible width or count."""
    for value in values:
        if isinstance(value, int) and abs(value) > _MAX_ARGUMENT:
            raise TemplateLimitError(f"passes an integer beyond {_MAX_ARGUMENT}")


def pay_format(pattern: str, *arguments: Any) -> None:
    """Pay for a format string as if each of its fields held all arguments.

    Raises TemplateLimitError when a field is padded beyond _MAX_FIELD.
    """
    if _WIDE_FIELD.search(pattern):
        raise TemplateLimitError(f"pads a field to more than {_MAX_FIELD} characters")
    n_fields = pattern.count("%") + pattern.count("{")
    pay(n_fields * (_MAX_FIELD + pay_text(arguments)))


def pay_method(text: str, name: str, arguments: tuple[Any, ...]) -> None:
    """Pay for the methods of a string that can make a huge one of small arguments."""
    match name, arguments:
        case "replace", (old, new, *_):
            pay(text.count(str(old)) * len(str(new)))
        case "join", (parts,):
            pay(len(text) * len(parts))
            pay_text(parts)
        case (("format" | "format_map"), _):
            pay_format(text, *arguments)
