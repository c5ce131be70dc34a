"""Ranges of numbers, and booleans: what is allowed, said the same wherever a value comes from.

A leaf module. A range says itself as people write it, ``0..64`` or ``(0, 1]``; the configuration,
the requests and the documents that tests compare with them take the words from here.
"""

import math
from dataclasses import dataclass

MAX_TEXT_BYTES = 1 << 20  # of a prompt, of all messages of a chat together, of a text to tokenize


@dataclass(frozen=True, slots=True)
class Boolean:
    """True or false."""

    def check(self, value: object) -> bool:
        """Return the boolean; numbers are none."""
        if not isinstance(value, bool):
            raise ValueError(f"must be {self}")
        return value

    def __str__(self) -> str:
        return "true or false"


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number from low to high, both included."""

    low: int
    high: int

    def check(self, value: object) -> int:
        """Return the number; raise ValueError saying what is allowed. A boolean is no number."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be a whole number, {self}")
        if not self.low <= value <= self.high:
            raise ValueError(f"must be {self}")
        return value

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


@dataclass(frozen=True, slots=True)
class Real:
    """A finite number from low to high; ``open_low``/``open_high`` leave that end out."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def check(self, value: object) -> float:
        """Return the number as a float, whole ones too; raise ValueError saying what is allowed."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"must be a number in {self}")
        number = float(value)
        above = number > self.low if self.open_low else number >= self.low
        below = number < self.high if self.open_high else number <= self.high
        if not (math.isfinite(number) and above and below):
            raise ValueError(f"must be in {self}")
        return number

    def __str__(self) -> str:
        open_high = self.open_high or math.isinf(self.high)  # an infinite number is none of it
        left, right = "(" if self.open_low else "[", ")" if open_high else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"
