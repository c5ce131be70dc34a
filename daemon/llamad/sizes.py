"""Sizes and counts for people; sizes in powers of 1000, as those of files and disks are told."""


def size(n_bytes: float) -> str:
    """Return bytes for people.

    >>> size(98_362_432), size(0)
    ('98.4 MB', '0 B')
    """
    if n_bytes < 1000:
        return f"{n_bytes:.0f} B"
    value = float(n_bytes)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 1000 or unit == "GB":
            break
    return f"{value:.1f} {unit}"


def counted(n: int, noun: str) -> str:
    """Return how many things there are, of which the plural ends with s.

    >>> counted(1, "request"), counted(0, "token")
    ('1 request', '0 tokens')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def compact_size(n_bytes: float) -> str:
    """Return bytes for people as one word: 98.4MB."""
    return size(n_bytes).replace(" ", "")
