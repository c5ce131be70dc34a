"""Types of command line options that several tools have; a wrong one is a usage error."""

import argparse
import re
from collections.abc import Callable

MAX_COUNT = 1 << 31
MAX_MEMORY_BYTES = 1 << 50

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def number(low: int, high: int) -> Callable[[str], int]:
    """Return a type for argparse: an integer from low to high."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not low <= int(text[:20]) <= high:
            raise argparse.ArgumentTypeError(f"{text!r}: {low} to {high} are possible")
        return int(text)

    return parse


def memory_bytes(text: str) -> int:
    """Return bytes: a number, with K, M or G a multiple of a power of 1024."""
    match = re.fullmatch(r"([0-9]{1,16})([KMG]?)(?:I?B)?", text.upper())
    if match is None or int(match[1]) * _UNITS[match[2]] > MAX_MEMORY_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} is no memory size such as 4GB")
    return int(match[1]) * _UNITS[match[2]]
