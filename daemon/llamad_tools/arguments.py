"""Types of command line options that several tools have; a wrong one is a usage error."""

import argparse
from collections.abc import Callable

MAX_THREADS = 64  # of the engine
MAX_CTX_SIZE = 1 << 20  # tokens


def number(low: int, high: int) -> Callable[[str], int]:
    """Return a type for argparse: an integer from low to high."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not low <= int(text[:20]) <= high:
            raise argparse.ArgumentTypeError(f"{text!r}: {low} to {high} are possible")
        return int(text)

    return parse
