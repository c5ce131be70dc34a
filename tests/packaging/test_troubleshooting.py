"""docs/troubleshooting.md: the messages it explains are messages that the program gives."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("daemon/llamad", "clients", "native/src")


def explained_messages() -> list[str]:
    """Return the messages in the first column of the troubleshooting table."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    return re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)


def source_text() -> str:
    """Return every source as one text in which a message cut over lines is whole again."""
    files = [
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".c", ".h")
    ]
    return re.sub(r"[\"']\s*\n\s*f?[\"']", "", "\n".join(path.read_text() for path in files))


def test_the_table_is_found() -> None:
    assert len(explained_messages()) >= 10


@pytest.mark.parametrize("message", explained_messages())
def test_the_program_gives_the_message(message: str) -> None:
    """What is fixed in a message stands in the sources; numbers and names do not."""
    text = source_text()
    fixed = [part.strip() for part in re.split(r"\.\.\.|\b\d+\b|\bllamad$", message)]
    for part in filter(None, fixed):
        assert part in text, part
