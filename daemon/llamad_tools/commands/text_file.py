"""Text files that tools read whole."""

from pathlib import Path

from llamad.errors import ErrorKind, LlamadError


def read_text(path: Path) -> str:
    """Return the file's text; an error names the path and the fault."""
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        message = f"{path}: {error.strerror}"
    except UnicodeDecodeError as error:
        message = f"{path}: byte {error.start} is not UTF-8"
    raise LlamadError(ErrorKind.INVALID, "TEXT_UNREADABLE", message)
