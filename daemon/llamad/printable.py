"""Text of files on a terminal: names in them may come from anybody, and must not command it."""


def printable(text: str) -> str:
    """Return the text in one line, what is not printable as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
