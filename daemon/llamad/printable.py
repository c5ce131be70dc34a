"""Text of files on a terminal: names in them may come from anybody, and must not command it."""

MOST_QUOTED = 64  # characters


def printable(text: str) -> str:
    """Return the text in one line, what is not printable as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def quoted(text: str) -> str:
    """Return the text in quotes, in one line and cut: a file's texts have any length."""
    return repr(text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]}...")
